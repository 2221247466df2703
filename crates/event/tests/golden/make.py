"""Writes the golden bytes of crates/event/src/wire.rs; run by make.sh."""

import struct
import sys
from pathlib import Path

from driver_location_pb2 import DriverLocation

NORMAL = dict(
    driver_id="driver-17",
    latitude=40.7128,
    longitude=-74.006,
    heading=90.5,
    speed=31.7,
    timestamp=1795441689633,
    received_at=1795441689700,
    effective_at=1795441689634,
)


def varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out + bytes([value]))


def encoded(**fields):
    return DriverLocation(**fields).SerializeToString(deterministic=True)


def without(*names):
    return {name: value for name, value in NORMAL.items() if name not in names}


normal = encoded(**NORMAL)
# What a later version of the schema might add: a varint, a fixed32, a fixed64, a length-delimited field and a group, between and behind the
# known ones.
unknown = (
    varint(100 << 3 | 0) + varint(2**63)
    + normal
    + varint(101 << 3 | 5) + struct.pack("<f", 1.5)
    + varint(102 << 3 | 1) + struct.pack("<d", 2.5)
    + varint(103 << 3 | 2) + varint(5) + b"later"
    + varint(104 << 3 | 3) + varint(1 << 3 | 0) + varint(7) + varint(104 << 3 | 4)
)
parsed = DriverLocation.FromString(unknown)
assert (parsed.driver_id, parsed.effective_at) == ("driver-17", 1795441689634)

files = {
    "normal": normal,
    "empty": encoded(),
    "zero_coordinates": encoded(**{**NORMAL, "latitude": 0.0, "longitude": 0.0, "heading": 0.0, "speed": 0.0}),
    "optionals_absent": encoded(**without("heading", "speed")),
    "times_absent": encoded(**without("received_at", "effective_at")),
    "latitude_absent": encoded(**without("latitude")),
    "longest_id": encoded(**{**NORMAL, "driver_id": "運" * 42 + "é"}),
    "id_too_long": encoded(**{**NORMAL, "driver_id": "x" * 129}),
    "negative": encoded(**{**NORMAL, "latitude": -90.0, "longitude": -180.0, "heading": -1.0, "speed": -1.0, "timestamp": -1}),
    "southwest": encoded(**{**NORMAL, "latitude": -33.8688, "longitude": -179.9999}),
    "not_a_number": encoded(**{**NORMAL, "latitude": float("nan")}),
    "unknown_fields": unknown,
    "truncated": normal[:-1],
    # latitude as a string: right number, wrong wire type.
    "wrong_wire_type": varint(2 << 3 | 2) + varint(4) + b"40.7",
}
for name, value in files.items():
    (Path(sys.argv[1]) / f"{name}.bin").write_bytes(value)
