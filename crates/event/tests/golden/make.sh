#!/bin/sh
# Makes the golden bytes anew with Google's Python protobuf, an implementation that shares nothing with ours.
# Usage: crates/event/tests/golden/make.sh   (needs python3 with venv; leaves the tools in target/golden-venv)
set -eu
cd "$(dirname "$0")/../../../.."
venv=target/golden-venv
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/pip" install --quiet 'grpcio-tools==1.76.0' 'protobuf==6.33.1'
generated=$(mktemp -d)
trap 'rm -rf "$generated"' EXIT
"$venv/bin/python" -m grpc_tools.protoc -I proto --python_out="$generated" proto/driver_location.proto
PYTHONPATH="$generated" "$venv/bin/python" crates/event/tests/golden/make.py crates/event/tests/golden
