"""Runs the commands of the embedded stack: python -m stack up | down | status | clean | secrets.

Services and scripts use these: exec <service>, which becomes a service; env and spark, which print variables for a
shell; stores, which creates buckets, users and tables in stores run elsewhere (in containers, say); and published,
which reads `.env`, a line ---, and the output of `docker compose config`.
"""

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from jobs import settings
from stack import services


def become(name: str) -> None:
    """Replaces this process with a service; supervisord starts services this way."""
    program = services.SERVICES[name].program()
    os.chdir(services.stack_dir())
    os.execvpe(program.command[0], program.command, program.environment)


def exported(values: Mapping[str, str]) -> str:
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in values.items())


def spark_environment() -> str:
    """Returns shell variables that point a Spark program started by hand at this clone's Spark, settings and stack."""
    own = services.spark().environment | services.store_environment() | services.spark_secret()
    if not (services.spark_conf() / "spark-defaults.conf").exists():
        own["SPARK_CONF_DIR"] = str(Path(own["SPARK_HOME"], "conf"))
        del own["SPARK_LOCAL_DIRS"]
    own |= {name: os.environ[name] for name in ("no_proxy", "NO_PROXY")}
    unset = "".join(f"unset {name}\n" for name in [*settings.load(), "SPARK_REMOTE"])
    return unset + exported({name: value for name, value in own.items() if name not in ("PATH", "STACK_OF")})


def main(words: list[str]) -> int:
    given = [name for name in settings.SECRETS if name in os.environ]
    settings.load()
    match words:
        case ["exec", name] if name in services.SERVICES:
            become(name)
        case ["env"]:
            print(exported(services.store_environment()))
        case ["spark"]:
            print(spark_environment())
        case ["stores"]:
            from stack import supervision

            supervision.create_stores()
        case ["secrets"]:
            from stack import passwords

            passwords.replace(given)
        case ["published"]:
            from stack import passwords

            passwords.refuse_published(sys.stdin.read())
        case ["up"]:
            from stack import supervision

            supervision.up(given)
        case ["down" | "status" | "clean" as verb]:
            from stack import supervision

            return 0 if getattr(supervision, verb)() is not False else 1
        case _:
            raise SystemExit(__doc__)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("Interrupted; `make down` stops what has been started.")
