"""What a storage raises."""


class StorageError(Exception):
    """The storage cannot do what it was asked; the message says what to do."""


class UnknownStudy(StorageError):
    """There is no study of that name in the storage."""


class NumberTaken(StorageError):
    """Another worker wrote a trial of this number first: sync, then ask again."""


class StudyRevised(StorageError):
    """Problem or settings of the study were changed since it was opened: open it again."""
