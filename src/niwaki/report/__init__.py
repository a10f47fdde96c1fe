"""What people look at: figures and pages made of measured numbers. Nothing here ever sees a model."""

from niwaki.report.channels import channels_dot
from niwaki.report.channels_page import channels_html
from niwaki.report.figures import FigurePoint, accuracy_size_figure
from niwaki.report.importances import importance_histograms
from niwaki.report.numbers import as_csv, as_json
from niwaki.report.page import report_page
from niwaki.report.runs import Run, pareto, read_runs

__all__ = [
    "FigurePoint",
    "Run",
    "accuracy_size_figure",
    "as_csv",
    "as_json",
    "channels_dot",
    "channels_html",
    "importance_histograms",
    "pareto",
    "read_runs",
    "report_page",
]
