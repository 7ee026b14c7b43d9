"""Pictures and reports of partitions; tables and the page of results."""

from .partition_grid import partition_grid
from .partition_report import partition_record, report_partition
from .report_page import write_report
from .sample_images import SampleImages
from .tables import Table, format_markdown, format_table

__all__ = [
    'SampleImages',
    'Table',
    'format_markdown',
    'format_table',
    'partition_grid',
    'partition_record',
    'report_partition',
    'write_report',
]
