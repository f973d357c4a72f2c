"""Names that are spelled once: the group, labels, condition types and reasons."""

from __future__ import annotations

GROUP = "largeforge.ai"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
FIELD_MANAGER = "largeforge"
PUBLISH_MANAGER = "largeforge-publish"
"""Experts made by a run are applied under this manager, so that fields that a person edits stay theirs."""
PROGRESS_MANAGER = "largeforge-progress"
"""`status.progress` and `status.metrics` are applied under this manager: every replica may write what a trainer posts,
and whoever writes the rest of a status leaves these two alone."""
SCALE_MANAGER = "largeforge-scale"
"""A Deployment's `replicas` are applied under this manager before an autoscaler has them: a field that its only manager
drops goes back to its default."""

# Labels
MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "largeforge"
FINETUNEJOB_LABEL = f"{GROUP}/finetunejob"
QUANTIZEJOB_LABEL = f"{GROUP}/quantizejob"
INFERENCESERVICE_LABEL = f"{GROUP}/inferenceservice"
EXPERT_LABEL = f"{GROUP}/expert"
ROUTER_LABEL = f"{GROUP}/router"
"""On the Services by which the operator finds the report of a namespace's routers."""
RUN_LABEL = f"{GROUP}/run"
ATTEMPT_LABEL = f"{GROUP}/attempt"
STAGE_LABEL = f"{GROUP}/stage"
JOB_NAME_LABEL = "batch.kubernetes.io/job-name"
"""On the pods of a Job: its name, by Kubernetes itself."""

# Finalizers
ARTIFACT_FINALIZER = f"{GROUP}/artifact"
"""On an Expert with `deletionPolicy: Delete`: its files go before it does."""

# Annotations
TEMPLATE_DIGEST = f"{GROUP}/template-digest"

# Condition types of jobs
COMPLETE = "Complete"
FAILED = "Failed"
SUSPENDED = "Suspended"
STALLED = "Stalled"
RUNNING = "Running"
VALIDATED = "Validated"
STORAGE_REACHABLE = "StorageReachable"
DATASET_VALID = "DatasetValid"
GATE_PASSED = "GatePassed"
PUBLISHED = "Published"
LEFTOVERS_REMOVED = "LeftoversRemoved"

# Condition types of services and experts
READY = "Ready"
RECONCILING = "Reconciling"
ARTIFACT_RESOLVED = "ArtifactResolved"
COMPATIBLE = "Compatible"
LOADED = "Loaded"
PROBED = "Probed"
DISTINCT = "Distinct"


class Reason:
    """Why a condition is what it is. Documented in `docs/troubleshooting.md`, one entry each (a test holds it)."""

    # Good or on the way
    SUCCEEDED = "Succeeded"
    STARTED = "Started"
    PENDING = "Pending"
    WAITING = "Waiting"
    RUNNING = "Running"
    PREFLIGHT = "Preflight"
    RETRYING = "Retrying"
    SUSPENDED = "SuspendedByUser"
    NOT_SUSPENDED = "NotSuspended"
    PUBLISHED = "Published"
    NOT_REQUESTED = "NotRequested"
    RESOLVED = "Resolved"
    COMPATIBLE = "Compatible"
    LOADED = "Loaded"
    PROBED = "Probed"
    READY = "Ready"
    RECONCILING = "Reconciling"

    # The object itself
    UNREADABLE = "Unreadable"
    REFUSED = "Refused"

    # A run ended badly
    INVALID_CONFIG = "InvalidConfig"
    DATASET_INVALID = "DatasetInvalid"
    DATASET_MISSING = "DatasetMissing"
    BASE_INVALID = "BaseInvalid"
    CALIBRATION_INVALID = "CalibrationInvalid"
    SCHEME_INVALID = "SchemeInvalid"
    EVALUATION_FAILED = "EvaluationFailed"
    STORAGE_NOT_READY = "StorageNotReady"
    TRAINING_FAILED = "TrainingFailed"
    QUANTIZE_FAILED = "QuantizeFailed"
    NOT_SERVABLE = "NotServable"
    OUT_OF_MEMORY = "OutOfMemory"
    DISRUPTED = "Disrupted"
    BACKOFF_LIMIT_EXCEEDED = "BackoffLimitExceeded"
    RESULT_MISSING = "ResultMissing"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    GATE_FAILED = "GateFailed"
    GATE_PASSED = "GatePassed"
    NOT_EVALUATED = "NotEvaluated"
    CHECKED = "Checked"
    RERUN_REFUSED = "RerunRefused"
    SERVICE_ACCOUNT_NOT_ALLOWED = "ServiceAccountNotAllowed"
    REMOTE_CODE_NOT_ALLOWED = "RemoteCodeNotAllowed"
    STRATEGY_MISMATCH = "StrategyMismatch"
    OUT_OF_GPU_MEMORY = "OutOfGPUMemory"
    TARGET_MODULES_NOT_FOUND = "TargetModulesNotFound"
    CHAT_TEMPLATE_MISSING = "ChatTemplateMissing"
    DISK_FULL = "DiskFull"
    EVICTED = "Evicted"
    PREEMPTED = "Preempted"
    NODE_LOST = "NodeLost"
    SECRET_MISSING = "SecretMissing"  # noqa: S105 - a reason

    # An artifact is looked at, copied or removed
    INSPECTING = "Inspecting"
    DELIVERING = "Delivering"
    REMOVING = "Removing"
    REMOVED = "Removed"
    ARTIFACT_NOT_FOUND = "ArtifactNotFound"
    NOT_A_MODEL = "NotAModel"
    NOT_AN_ADAPTER = "NotAnAdapter"
    PICKLED_WEIGHTS = "PickledWeights"
    WEIGHTS_DAMAGED = "WeightsDamaged"
    SYMLINK_REFUSED = "SymlinkRefused"
    FOLDER_TOO_DEEP = "FolderTooDeep"
    NOT_READABLE = "NotReadable"
    DIGEST_DIFFERS = "DigestDiffers"
    JOB_FAILED = "JobFailed"

    # Storage
    CLAIM_NOT_FOUND = "ClaimNotFound"
    CLAIM_LOST = "ClaimLost"
    READ_WRITE_ONCE_ACROSS_NODES = "ReadWriteOnceAcrossNodes"
    READ_WRITE_ONCE_POD_IN_USE = "ReadWriteOncePodInUse"

    # The hub
    HUB_UNAUTHORIZED = "HubUnauthorized"
    HUB_FORBIDDEN = "HubForbidden"
    HUB_NOT_FOUND = "HubNotFound"
    HUB_RATE_LIMITED = "HubRateLimited"
    HUB_UNREACHABLE = "HubUnreachable"
    NAME_TAKEN = "NameTaken"

    # A pod does not start
    IMAGE_PULL_FAILED = "ImagePullFailed"
    UNSCHEDULABLE = "Unschedulable"
    CONTAINER_CONFIG_ERROR = "ContainerConfigError"
    ENGINE_FAILED = "EngineFailed"
    ENGINE_SILENT = "EngineSilent"
    SCALED_TO_ZERO = "ScaledToZero"
    STOPPED = "Stopped"
    BAD_ARGUMENT = "BadArgument"
    MODEL_NOT_FOUND = "ModelNotFound"
    UNSUPPORTED_ARCHITECTURE = "UnsupportedArchitecture"
    DOES_NOT_FIT = "DoesNotFit"

    # An expert is not served
    SOURCE_NOT_FOUND = "SourceNotFound"
    SOURCE_NOT_COMPLETE = "SourceNotComplete"
    SERVICE_NOT_FOUND = "ServiceNotFound"
    SERVICE_NOT_READY = "ServiceNotReady"
    BASE_MISMATCH = "BaseMismatch"
    UNSUPPORTED_ADAPTER = "UnsupportedAdapter"
    RANK_ABOVE_SERVICE = "RankAboveService"
    NO_ADAPTER_STORE = "NoAdapterStore"
    SLOTS_EXHAUSTED = "SlotsExhausted"
    TEMPLATE_DIFFERS = "TemplateDiffers"
    LOAD_FAILED = "LoadFailed"
    PROBE_FAILED = "ProbeFailed"
    ADAPTER_HAS_NO_EFFECT = "AdapterHasNoEffect"
    ADAPTER_DIFFERS = "AdapterDiffers"
    MODEL_DIFFERS = "ModelDiffers"
    ARCHIVED = "Archived"
    DISTINCT = "Distinct"
    OVERLAPS = "Overlaps"
    NO_EXAMPLES = "NoExamples"
    NO_ROUTER = "NoRouter"


class ExitCode:
    """How a run tells its Job why it ended; `podFailurePolicy` puts the cause into the Job's condition."""

    INVALID_CONFIG = 64
    """`EX_USAGE`: a setting is wrong. No next attempt."""
    INVALID_DATA = 65
    """`EX_DATAERR`: a data set or base is wrong. No next attempt."""
    STOPPED = 75
    """`EX_TEMPFAIL`: stopped by SIGTERM. The next attempt is not counted."""
