"""What is wrong with a data set, found before an eight-hour run finds out."""

from __future__ import annotations

from threer.data.checking.check import Finding, Report, check

__all__ = ["Finding", "Report", "check"]
