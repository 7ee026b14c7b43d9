"""Pictures of partitions, and the page of results."""

from .partition_grid import partition_grid
from .report_page import Table, format_table, write_report
from .sample_images import SampleImages

__all__ = ['SampleImages', 'Table', 'format_table', 'partition_grid', 'write_report']
