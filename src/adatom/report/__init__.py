"""The report of a campaign: one static HTML page and its figures."""

from adatom.report.picture import campaign_figure, write_picture
from adatom.report.report import write_report
from adatom.report.view import CampaignView, FrameMaps, StepSummary

__all__ = [
    "CampaignView",
    "FrameMaps",
    "StepSummary",
    "campaign_figure",
    "write_picture",
    "write_report",
]
