"""Run notebooks and write their output into them: `python docs/tutorials/renew.py [NAME ...]`, by default all.

Each runs in a kernel and an empty folder of its own. What would differ from run to run without meaning (times of
execution, the kernel's version) is not kept. Needs nbclient and ipykernel beside bascule.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def renew(path: Path) -> None:
    """Run one notebook, and replace it by itself with the output of this run.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell failed; the notebook stays as it is.
    """
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(
            notebook,
            timeout=900,
            kernel_name="python3",
            record_timing=False,
            resources={"metadata": {"path": folder}},
        ).execute()
    made: dict[str, Any] = json.loads(nbformat.writes(notebook))
    made["metadata"] = METADATA
    for cell in made["cells"]:
        cell["metadata"] = {}
        cell.get("outputs", []).sort(key=lambda output: output["output_type"] != "stream")
    path.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    names = sys.argv[1:] or sorted(path.stem for path in HERE.glob("*.ipynb"))
    for name in names:
        print(name, flush=True)
        renew(HERE / f"{name}.ipynb")
