"""What a server takes at most."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """max_batch:     images that the model is given at a time.
    max_wait_ms:   how long the first of them waits for others.
    queue:         requests that may be on their way; more are answered with 503.
    max_body_mb:   the size of a request, in 10⁶ bytes.
    max_images:    images in a request.
    max_megapixels: the size of an image when decoded, in 10⁶ pixels.
    timeout:       seconds to receive a request, and again to answer it.

    An answer is there after the batches before it, max_wait_ms and its own batch; of the former there are at most
    queue/max_batch while each request has one image.
    """

    max_batch: int = 16
    max_wait_ms: float = 2.0
    queue: int = 128
    max_body_mb: float = 10.0
    max_images: int = 32
    max_megapixels: float = 50.0
    timeout: float = 30.0
