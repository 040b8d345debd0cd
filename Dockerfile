# One image for Spark and Luigi: Debian's Java and Python, the locked packages, the jars that spark-defaults.conf names.
# Nothing is downloaded when it starts. `docker compose build` makes it.
ARG BASE_IMAGE=docker.io/library/debian:12.12-slim@sha256:d5d3f9c23164ea16f31852f95bd5959aad1c5e854332fe00f7b3a20fcc9f635c

FROM ${BASE_IMAGE} AS base
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        bash ca-certificates curl openjdk-17-jre-headless procps python3 tini \
    && rm -rf /var/lib/apt/lists/*
ENV PATH=/opt/venv/bin:$PATH SPARK_HOME=/opt/venv/lib/python3.11/site-packages/pyspark

FROM base AS packages
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY requirements.lock requirements-dev.lock pyproject.toml ./
# requirements.lock also pins the stack without containers. uv installs what pyproject.toml alone asks for, in the
# versions of the lock, and compares each file with its hashes.
RUN python3 -m venv tools \
    && awk '/^[^ #]/ { wanted = /^uv==/ } wanted' requirements-dev.lock > uv.lock \
    && tools/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r uv.lock \
    && tools/bin/uv venv /opt/venv \
    && tools/bin/uv pip install --no-cache --python /opt/venv/bin/python --link-mode copy --compile-bytecode \
        -r pyproject.toml -c requirements.lock
# Spark itself resolves its packages; the little program only makes it do so. A jar that is not the one in jars.sha256 ends
# the build, and one that is not in it stays behind.
COPY spark-defaults.conf conf/jars.sha256 ./
RUN echo 'print("resolved")' > nothing.py \
    && spark-submit --properties-file spark-defaults.conf --master 'local[1]' --conf spark.jars.ivy=/build/ivy \
        --conf spark.eventLog.enabled=false nothing.py \
    && env --chdir=ivy/jars sha256sum --check --strict --quiet /build/jars.sha256 \
    && awk '{ print "ivy/jars/" $2 }' jars.sha256 > names \
    && xargs --arg-file=names cp -t "$SPARK_HOME/jars" \
    && mv "$SPARK_HOME" /build/pyspark

FROM base
# Spark with its packages is half of the image and changes with its version only: a layer of its own.
COPY --from=packages /build/pyspark $SPARK_HOME
COPY --from=packages /opt/venv /opt/venv
WORKDIR /opt/healthcare
# Named one by one, so that no .env comes along.
COPY spark-defaults.conf pyproject.toml ./
COPY conf conf
COPY sql sql
COPY jobs jobs
COPY dashboards dashboards
COPY pipelines pipelines
COPY stack stack
# Volumes take over owner and content of the directory that they are first mounted on.
RUN useradd --uid 10001 --no-create-home --home-dir /tmp healthcare \
    && mkdir -p /etc/spark /var/lib/healthcare/dashboards /var/lib/healthcare/landing /var/lib/healthcare/luigi \
        /var/lib/healthcare/spark/events /var/lib/healthcare/spark/local /var/lib/healthcare/spark/recovery \
        /var/lib/healthcare/spark/work \
    && cat spark-defaults.conf conf/clusters/compose.conf > /etc/spark/spark-defaults.conf \
    && ln -s /opt/healthcare/conf/log4j2.properties /etc/spark/ \
    && ln -s /opt/healthcare/conf/containers/environment.sh /etc/spark/spark-env.sh \
    && cp dashboards/page/none.html /var/lib/healthcare/dashboards/index.html \
    && chown -R healthcare: /var/lib/healthcare \
    && python -m compileall -q jobs dashboards pipelines stack
# The secrets are files; what else a program needs is in the container's environment.
# hadolint ignore=DL3064
ENV PYTHONPATH=/opt/healthcare PYTHONUNBUFFERED=1 LUIGI_CONFIG_PATH=/opt/healthcare/conf/luigi.cfg TZ=UTC HOME=/tmp \
    SPARK_CONF_DIR=/etc/spark SECRETS_DIR=/run/secrets SPARK_LOCAL_DIRS=/var/lib/healthcare/spark/local \
    STACK_DIR=/var/lib/healthcare PGPASSFILE=/var/lib/healthcare/pgpass LANDING_DIR=/var/lib/healthcare/landing
USER 10001
ENTRYPOINT ["tini", "--", "/opt/healthcare/conf/containers/entrypoint.sh"]
