"""Store: the campaign directory and its ledger; all persistence.

Every output is written completely (temporary file, sync, rename) before its record goes into the
ledger, with a hash of the output. A process that is killed at any moment loses at most the step
that was running.
"""

from adatom.store.arrays import (
    MAPS,
    FrameStore,
    MapStore,
    load_frames,
    load_maps,
    open_frames,
    open_maps,
)
from adatom.store.directory import CAMPAIGN_SCHEMA, CampaignDirectory
from adatom.store.images import frames_together
from adatom.store.ledger import Ledger
from adatom.store.parts import FrameParts
from adatom.store.results import (
    RESULTS_COLUMNS,
    RESULTS_SCHEMA,
    read_result,
    result_files,
    results_table,
    write_result,
)
from adatom.store.structures import (
    read_structures,
    read_trajectory,
    write_structures,
    write_trajectory,
)
from adatom.store.tables import (
    file_hash,
    is_intact,
    read_json,
    read_table,
    read_text,
    write_json,
    write_table,
    write_text,
)

__all__ = [
    "CAMPAIGN_SCHEMA",
    "MAPS",
    "RESULTS_COLUMNS",
    "RESULTS_SCHEMA",
    "CampaignDirectory",
    "FrameParts",
    "FrameStore",
    "Ledger",
    "MapStore",
    "file_hash",
    "frames_together",
    "is_intact",
    "load_frames",
    "load_maps",
    "open_frames",
    "open_maps",
    "read_json",
    "read_result",
    "read_structures",
    "read_table",
    "read_text",
    "read_trajectory",
    "result_files",
    "results_table",
    "write_json",
    "write_result",
    "write_structures",
    "write_table",
    "write_text",
    "write_trajectory",
]
