# Sourced by every Spark program: `make install` links it, with spark-defaults.conf and log4j2.properties, into the venv's
# pyspark/conf. It makes a plain `spark-submit jobs/x.py` find this clone, its settings and its running stack. Outside the
# clone's venv (in a container) it does nothing: the environment there is the container's own.
venv="${SPARK_HOME%/lib*/python*}"
if [ -f "$venv/pyvenv.cfg" ]; then
  root="$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)"
  PYSPARK_PYTHON="${PYSPARK_PYTHON:-$venv/bin/python}"
  PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
  # Else Spark announces whatever address the host's name has.
  SPARK_LOCAL_IP="${SPARK_LOCAL_IP:-127.0.0.1}"
  # The store's address and keys, and SPARK_CONF_DIR where the stack has written one for its own ports.
  eval "$("$venv/bin/python" -m stack env)"
fi
