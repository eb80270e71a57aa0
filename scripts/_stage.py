"""Frame of every script: log to a file and the terminal, take GPUs, set threads, explain errors."""

import logging
import os
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

# The package of this checkout: an image that a script runs in holds another one.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from libranas.core.errors import LibranasError
from libranas.core.files import disk_error
from libranas.runs.cluster import take_gpus
from libranas.runs.files import run_path
from libranas.runs.folder import RunFolder


@contextmanager
def stage(snakemake):
    """Yield the run that a script works on; a user's mistake ends it with one message, without a traceback.

    The run sees the sections of the configuration that the rule names, and no others.
    """
    os.environ["OMP_NUM_THREADS"] = str(snakemake.threads)
    log_path = Path(snakemake.log[0])
    log_path.parent.mkdir(parents=True, exist_ok=True)
    logging.raiseExceptions = False  # a log that a full disk does not take must not bury the message
    handlers = [logging.FileHandler(log_path, mode="w"), logging.StreamHandler(sys.stderr)]
    handlers[1].setLevel(logging.WARNING if sys.stderr.isatty() else logging.INFO)
    root, log = logging.getLogger(), logging.getLogger("libranas")
    root.setLevel(logging.INFO)
    logging.getLogger("fontTools").setLevel(logging.WARNING)
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        root.addHandler(handler)
    try:
        take_gpus(snakemake.resources.get("gpu", 0))
        timed = bool(snakemake.input.get("latency"))
        yield RunFolder(run_path(snakemake.config), snakemake.params.get("config", {}), timed)
    except LibranasError as error:
        log.error("%s: %s", snakemake.rule, "\n".join([str(error), *getattr(error, "__notes__", [])]))
        sys.exit(1)
    except OSError as error:
        if error.errno is None:
            log.exception("%s failed", snakemake.rule)
        else:
            log.error("%s: %s", snakemake.rule, disk_error(error, Path(error.filename or log_path.parent)))
        sys.exit(1)
    except Exception:
        log.exception("%s failed; this looks like a fault of libranas, not of your input", snakemake.rule)
        sys.exit(1)
    finally:
        for handler in handlers:  # the process may run other stages
            root.removeHandler(handler)
            with suppress(OSError):
                handler.close()


def use_threads(count: int) -> None:
    """Give PyTorch as many threads as Snakemake gave the job: results and timings depend on it."""
    import torch

    torch.set_num_threads(count)
