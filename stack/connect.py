"""Runs the driver of the Spark Connect server until its SparkContext stops.

    spark-submit --conf spark.plugins=org.apache.spark.sql.connect.SparkConnectPlugin stack/connect.py

Spark's own SparkConnectServer gives every session its own class loader, so that each job recompiles generated code.
Here sessions share one class loader (docs/benchmarks.md).
"""

import sys
import time

from py4j.protocol import Py4JError
from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession

from jobs import settings

SECRETS = ("SPARK_CONNECT_AUTHENTICATE_TOKEN", "_SPARK_AUTH_SECRET")
BOUND = ("spark.driver.bindAddress", "spark.connect.grpc.binding.address")

if __name__ == "__main__":
    SparkContext._ensure_initialized()  # without it, a SparkConf lacks the options of spark-submit
    conf = SparkConf()
    bound = {name: conf.get(name, "") or "" for name in BOUND}
    settings.refuse_open(bound, map(settings.text, SECRETS))
    context = SparkSession.builder.getOrCreate().sparkContext
    try:
        while not context._jsc.sc().isStopped():
            time.sleep(1)
    except (Py4JError, OSError):
        sys.exit("The JVM of Spark Connect has ended.")
    sys.exit("Spark has stopped the application, as it does when it loses its master; it is started again.")
