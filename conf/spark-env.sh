# Sourced by a Spark that a Python program starts: `make install` links it, with spark-defaults.conf and log4j2.properties,
# into the venv's pyspark/conf. What is started by hand comes by conf/spark-submit, and has read the same before. Outside
# the clone's venv (in a container) it does nothing: the environment there is the container's own.
venv="${SPARK_HOME%/lib*/python*}"
if [ -f "$venv/pyvenv.cfg" ]; then
  root="$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)"
  environment="$(cd "$root" && "$venv/bin/python" -m stack spark)" && eval "$environment"
fi
