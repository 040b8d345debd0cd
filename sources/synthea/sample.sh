#!/usr/bin/env bash
# Makes sample.tar.xz anew: the export of 60 living patients and their two years up to 2026-01-01, by Synthea 3.3.0 with fixed
# seeds. Needs Java 17 or 21, Maven (which downloads 200 MB into ~/.m2, once) and some minutes: sources/synthea/sample.sh
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
command -v mvn >/dev/null || { echo "Maven is missing: install it (apt-get install maven) and run the same again." >&2; exit 1; }
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
files="patients.csv encounters.csv procedures.csv claims.csv claims_transactions.csv"

mvn -q -B -f "$here/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:2.8:build-classpath \
  -Dmdep.outputFile="$work/classpath" -Dmdep.includeScope=runtime
# One thread, or the order of the records would be another one each time; `-e` ends it, which today would else.
java -cp "$(<"$work/classpath")" App -p 60 -s 42 -cs 42 -r 20260101 -e 20260101 \
  --generate.only_alive_patients=true --generate.thread_pool_size=1 --exporter.years_of_history=2 \
  --exporter.csv.export=true --exporter.fhir.export=false \
  --exporter.hospital.fhir.export=false --exporter.practitioner.fhir.export=false \
  --exporter.baseDirectory="$work" Massachusetts >"$work/log" || { tail -5 "$work/log" >&2; exit 1; }
cd "$work/csv"
# shellcheck disable=SC2086  # names of files, without blanks
tar --create --sort=name --mtime=2026-01-01T00:00Z --owner=0 --group=0 --numeric-owner --mode=644 $files |
  xz -9e >"$here/sample.tar.xz"
wc -l $files
