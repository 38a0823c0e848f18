"""A run as one HTML file that can be read and sent anywhere, several runs beside each other, files for TensorBoard."""

from .compare import compare_runs, write_comparison
from .events import EventFiles
from .page import write_report
from .run import Run, read_run

__all__ = ["EventFiles", "Run", "compare_runs", "read_run", "write_comparison", "write_report"]
