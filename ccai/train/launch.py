"""Starts a phase of a training in this process, or in several through `accelerate launch`.

The processes receive their input from files only: the phase, and accelerate's own settings. No parameter is ever part
of a command line.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import yaml
from pydantic import TypeAdapter

from ccai.base.errors import BAD_INPUT, UserError, run
from ccai.base.files import write_bytes, write_text
from ccai.train import checkpoints, phases
from ccai.train.checkpoints import Stop
from ccai.train.trainers import Phase

PHASE = TypeAdapter(Phase)

SHARDED = {
    "fsdp_version": 2,
    "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "fsdp_reshard_after_forward": True,
    "fsdp_state_dict_type": "FULL_STATE_DICT",
    "fsdp_cpu_ram_efficient_loading": False,
}
"""Fully sharded data parallelism in accelerate's terms."""


def start(phase: Phase, stop: Stop, lock: int) -> None:
    """Train a phase, in as many processes as its parameters say.

    Args:
        lock: descriptor of a locked file that stays locked while any of the processes lives.

    Raises:
        UserError: the error of one of the processes, or that one ended without one.
        SystemExit: stopped by a signal; checkpoints were saved.
    """
    checkpoints.settle(phase.folder / "checkpoints")
    if phase.params.processes == 1:
        phases.train(phase, stop)
        return
    write_bytes(phase.folder / "phase.json", PHASE.dump_json(phase))
    write_text(phase.folder / "accelerate.yaml", yaml.safe_dump(_accelerate(phase)))
    message = phase.folder / "error.txt"
    message.unlink(missing_ok=True)
    command = [sys.executable, "-m", "accelerate.commands.launch"]
    command += ["--config_file", str(phase.folder / "accelerate.yaml")]
    command += ["-m", "ccai.train.launch", str(phase.folder / "phase.json")]
    log = phase.folder / "launch.log"
    with log.open("wb") as file:
        launcher = subprocess.Popen(command, stderr=file, pass_fds=[lock])
    try:
        code = launcher.wait()
    except BaseException:  # SIGTERM, SIGINT: the launcher would give its processes only 30 seconds
        for process in psutil.Process(launcher.pid).children():
            process.send_signal(signal.SIGTERM)
        launcher.wait()
        raise
    if message.exists():
        raise UserError(message.read_text(encoding="utf-8"))
    if code:
        killed = "exitcode: -9" in log.read_text(encoding="utf-8", errors="replace")
        how = "was ended by signal 9, as the system does where memory is short" if killed else "ended with an error"
        raise UserError(f"train: one of {phase.params.processes} processes {how}; see {log}")


def _accelerate(phase: Phase) -> dict[str, object]:
    """A config file for accelerate. `MULTI_GPU` starts the processes; on a CPU they communicate through gloo."""
    settings: dict[str, object] = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "FSDP" if phase.params.sharding == "fsdp" else "MULTI_GPU",
        "num_machines": 1,
        "machine_rank": 0,
        "num_processes": phase.params.processes,
        "main_process_port": 0,  # any free port
        "gpu_ids": "all",
        "mixed_precision": "no",  # set by the trainer's arguments
        "main_training_function": "main",
        "use_cpu": phase.placement.device == "cpu",
        "debug": False,
    }
    return settings | ({"fsdp_config": SHARDED} if phase.params.sharding == "fsdp" else {})


def main() -> None:
    """`python -m ccai.train.launch PHASE.json`, started by accelerate in each process."""
    parser = argparse.ArgumentParser(
        prog="python -m ccai.train.launch", description="One process of a phase of training."
    )
    parser.add_argument("phase", type=Path, metavar="PHASE.json", help="as the train stage writes it")
    phase = PHASE.validate_json(parser.parse_args().phase.read_bytes())
    with Stop() as stop:
        try:
            phases.train(phase, stop)
        except UserError as error:
            write_text(phase.folder / "error.txt", str(error))
            raise SystemExit(BAD_INPUT) from None


if __name__ == "__main__":
    run(main)
