"""git: workspaces, the merge queue, the tests of the merged tree."""

from parallel_orchestrator.trunk.git.edits import Edits
from parallel_orchestrator.trunk.results import (
    Conflict,
    Coverage,
    FinalReport,
    Merged,
    MergedCommit,
    Rejected,
    Submission,
    SubmitterClaim,
    TestCounts,
    TestsFailed,
    VerifyResult,
)
from parallel_orchestrator.trunk.trunk import Trunk

__all__ = [
    "Conflict",
    "Coverage",
    "Edits",
    "FinalReport",
    "Merged",
    "MergedCommit",
    "Rejected",
    "Submission",
    "SubmitterClaim",
    "TestCounts",
    "TestsFailed",
    "Trunk",
    "VerifyResult",
]
