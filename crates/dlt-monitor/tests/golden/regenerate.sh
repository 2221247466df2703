#!/bin/sh
# Makes the golden headers again with the versions of Spring Kafka and Kafka Connect that pom.xml pins. Needs Java 17 and Maven.
set -eu
cd "$(dirname "$0")"
classpath=$(mktemp)
trap 'rm -f "$classpath"' EXIT
mvn -q -B dependency:build-classpath -Dmdep.outputFile="$classpath"
java -cp "$(cat "$classpath")" Generate.java
