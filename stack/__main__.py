"""python -m stack up | down | status | clean; for the programs themselves, exec <service> and env; and for stores that
somebody else runs, as in containers, stores: their buckets, the store's users, and tables.
"""

import os
import shlex
import sys

from jobs import settings
from stack import services


def become(name: str) -> None:
    """Turns this process into a service: what supervisord starts."""
    program = services.SERVICES[name].program()
    os.chdir(services.stack_dir())
    os.execvpe(program.command[0], program.command, program.environment)


def spark_environment() -> str:
    """For spark-env.sh: the store's address and keys, and where this stack's own configuration lies."""
    values = services.store_environment()
    if (services.spark_conf() / "spark-defaults.conf").exists():
        values |= {"SPARK_CONF_DIR": str(services.spark_conf()), "SPARK_LOCAL_DIRS": str(services.spark_local())}
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in values.items())


def main(words: list[str]) -> int:
    settings.load()
    match words:
        case ["exec", name] if name in services.SERVICES:
            become(name)
        case ["env"]:
            print(spark_environment())
        case ["stores"]:
            from stack import supervision

            supervision.create_stores()
        case ["up" | "down" | "status" | "clean" as verb]:
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
