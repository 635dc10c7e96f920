"""Your turn: each chapter's main experiment as one call on your own material, with the controls of the chapter."""

from utils.lazy import hand_on

NAMES = {
    "labelled": "tables", "read_table": "tables", "read_values": "tables",
    "probe_table": "probe",
}
hand_on(__name__, NAMES)
