"""Pictures and reports of partitions, pictures of features; tables and the page of results."""

from .filter_figure import FilterPanel, FilterRow, draw_filters
from .partition_grid import partition_grid
from .partition_report import partition_record, report_partition
from .report_page import write_report
from .response_figure import Accuracy, EncoderResponse, draw_responses
from .sample_images import SampleImages
from .tables import Table, format_markdown, format_table

__all__ = [
    'Accuracy',
    'EncoderResponse',
    'FilterPanel',
    'FilterRow',
    'SampleImages',
    'Table',
    'draw_filters',
    'draw_responses',
    'format_markdown',
    'format_table',
    'partition_grid',
    'partition_record',
    'report_partition',
    'write_report',
]
