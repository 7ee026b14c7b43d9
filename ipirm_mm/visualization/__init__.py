"""Pictures and reports of partitions, pictures of features; tables and the page of results."""

from .curves import draw_curves
from .feature_pictures import (
    draw_map,
    draw_neighbors,
    nearest_neighbors,
    principal_components,
    tsne,
)
from .filter_figure import FilterPanel, FilterRow, draw_filters
from .partition_grid import partition_grid
from .partition_report import partition_record, read_partitions, report_partition
from .report_page import write_report
from .response_figure import Accuracy, EncoderResponse, draw_responses
from .sample_images import SampleImages
from .tables import Table, format_markdown, format_table
from .training_page import Section, write_training_page

__all__ = [
    'Accuracy',
    'EncoderResponse',
    'FilterPanel',
    'FilterRow',
    'SampleImages',
    'Section',
    'Table',
    'draw_curves',
    'draw_filters',
    'draw_map',
    'draw_neighbors',
    'draw_responses',
    'format_markdown',
    'format_table',
    'nearest_neighbors',
    'partition_grid',
    'partition_record',
    'principal_components',
    'read_partitions',
    'report_partition',
    'tsne',
    'write_report',
    'write_training_page',
]
