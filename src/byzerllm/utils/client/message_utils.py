"""Old import path of ``byzerllm.messages``."""

from byzerllm.messages import (
    check_error_count,
    copy_error_count,
    fail_message,
    get_error_count,
    inc_error_count,
    is_success,
    padding_messages_expand,
    padding_messages_merge,
    success_message,
    termindate_message,
    un_termindate_message,
)

__all__ = [
    "check_error_count",
    "copy_error_count",
    "fail_message",
    "get_error_count",
    "inc_error_count",
    "is_success",
    "padding_messages_expand",
    "padding_messages_merge",
    "success_message",
    "termindate_message",
    "un_termindate_message",
]
