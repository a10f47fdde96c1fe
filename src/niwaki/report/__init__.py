"""What people look at: figures and pages made of measured numbers. Nothing here ever sees a model."""

from niwaki.report.channels import channels_dot, channels_html
from niwaki.report.figures import FigurePoint, accuracy_size_figure

__all__ = ["FigurePoint", "accuracy_size_figure", "channels_dot", "channels_html"]
