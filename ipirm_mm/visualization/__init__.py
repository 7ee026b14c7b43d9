"""Pictures of partitions, and the page of results."""

from .partition_grid import partition_grid
from .report_page import format_table, write_report

__all__ = ['format_table', 'partition_grid', 'write_report']
