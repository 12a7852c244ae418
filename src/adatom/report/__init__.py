"""The report of a campaign: one static HTML page; `adatom.report.picture` draws one wide figure."""

from adatom.report.report import write_report
from adatom.report.view import CampaignView, FrameMaps, Loaded, StepSummary

__all__ = ["CampaignView", "FrameMaps", "Loaded", "StepSummary", "write_report"]
