"""Every error this package raises, as one tree.

::

    CoeError
    ├── ConfigError            a configuration file is absent, malformed or inconsistent
    ├── WeightsError           weights are absent, or are not the bytes the manifest promises
    ├── PlanError              a plan cannot be read, written, made or used
    ├── SimulationError        what is asked for cannot be simulated, or a trace cannot be read
    ├── ArtefactError          a trained artefact is absent, altered or of another schema
    ├── OutcomesError          an outcome or prompt table has the wrong columns or values
    ├── MeasurementsError      a table of measured requests has the wrong columns or values
    ├── FleetError             a cluster, its supervisor or a node of it is not there
    ├── LedgerError            the ledger cannot be opened, read or written, or does not add up
    │   ├── LedgerConflictError    what is said of a request contradicts what was said before
    │   └── LedgerUnavailableError nothing can be reserved now: may pass by itself
    ├── MeterError             a meter of power or energy cannot be read
    ├── EmbeddingError         an embeddings endpoint gave no vectors
    │   └── EmbeddingUnavailableError  not there, overloaded, or too slow: may pass by itself
    ├── RequestError           the caller asked for something impossible
    │   ├── UnknownExpertError     no such expert or budget policy
    │   ├── BudgetExhaustedError   a hard budget over time does not leave what it may take
    │   ├── CredentialsError       no key is shown, or one that is none
    │   ├── ForbiddenError         the key is right, and may not do this
    │   ├── RateLimitError         asked too often, or for too much, per minute
    │   └── InfeasibleError        no expert fits the budget; carries the smallest that would do
    ├── GatewayError           the gateway itself takes a request no further
    │   ├── OverloadedError        too many others are being answered
    │   ├── OverdueError           it took longer than any request may
    │   └── EndingError            the gateway is being ended
    └── ExpertError            an expert did not answer
        ├── ExpertUnavailableError     not there: not started, crashed, refused the connection
        │   ├── ExpertLostError            asked, and gone before its answer began
        │   └── ExpertUnaskedError         not even asked: nothing is there that could be
        │       └── ExpertOverloadedError      nothing there takes one more request now
        ├── ExpertTimeoutError         there, but silent for longer than allowed
        ├── ExpertRejectedError        answered with an HTTP error of its own
        └── ExpertUntrustedError       what came is no answer, or not from whom it should be

Of `files` that cannot be used; of what a `gateway` lacks, and what it takes no further; of
`callers` who asked for what cannot be had; of `experts` who gave no answer.

Every constructor argument reaches ``super().__init__``, so that an error survives pickling
between processes.
"""

from __future__ import annotations


class CoeError(Exception):
    """Base of every error of this package. ``str(error)`` is one sentence a person can act on."""
