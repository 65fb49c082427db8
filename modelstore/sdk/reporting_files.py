"""Reporting to a model or task: pictures and other files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from modelstore.errors import InvalidRequestError
from modelstore.sdk.reporting import Reporting

if TYPE_CHECKING:
    from modelstore.registry.reports import Place

__all__ = ["ReportingFiles"]


class ReportingFiles(Reporting):
    """The part of models and loggers that reports pictures and files, which are kept in the registry's folder."""

    def _place(self, title: str, series: str, iteration: int | None) -> Place:
        from modelstore.registry.reports import Place

        _, kind, entity = self._reports()
        return Place(kind, entity, title, series, iteration)

    def report_image(
        self,
        title: str,
        series: str,
        iteration: int | None = None,
        local_path: str | os.PathLike[str] | None = None,
        image: Any = None,
        matrix: Any = None,
        max_image_history: int | None = None,
        delete_after_upload: bool = False,
        url: str | None = None,
    ) -> None:
        """Report a picture; exactly one of ``local_path``, ``image``, ``matrix`` and ``url`` says which.

        Args:
            title: Name of the chart.
            series: Name of the variant.
            iteration: The training iteration.
            local_path: A file, which is kept as it is.
            image: A picture of PIL, or an array, tensor or nested list of height × width, height × width × channels
                (1 to 4), or channels × height × width; whole numbers of 0 to 255, floats of 0 to 1.
            matrix: The same as ``image``.
            max_image_history: Accepted for compatibility; every picture is kept.
            delete_after_upload: Delete ``local_path`` once its bytes are stored.
            url: Address of a picture that stays where it is.

        Raises:
            InvalidRequestError: An argument is not acceptable; nothing was reported.
            StorageError: The file cannot be read or stored; nothing was reported.
        """
        _ = max_image_history
        if sum(given is not None for given in (local_path, image, matrix, url)) != 1:
            raise InvalidRequestError("Exactly one of local_path, image and url must be given")
        if image is None and matrix is None:
            self._report_file("image", self._place(title, series, iteration), local_path, url, delete_after_upload)
            return
        from modelstore.reports.pictures import png

        content = png(image if image is not None else matrix)
        self._reports()[0].file(self._place(title, series, iteration), "image", content, "image.png")

    def report_media(
        self,
        title: str,
        series: str,
        iteration: int | None = None,
        local_path: str | os.PathLike[str] | None = None,
        stream: Any = None,
        file_extension: str | None = None,
        max_history: int | None = None,
        delete_after_upload: bool = False,
        url: str | None = None,
    ) -> None:
        """Report audio, video, HTML or another file; exactly one of ``local_path``, ``stream`` and ``url`` says which.

        Args:
            title: Name of the chart.
            series: Name of the variant.
            iteration: The training iteration.
            local_path: A file, which is kept as it is.
            stream: An object with `read`, as io.BytesIO and io.StringIO are; it is read from its present position.
            file_extension: What the stream holds, as ".wav"; needed with ``stream``.
            max_history: Accepted for compatibility; every file is kept.
            delete_after_upload: Delete ``local_path`` once its bytes are stored.
            url: Address of a file that stays where it is.

        Raises:
            InvalidRequestError: An argument is not acceptable; nothing was reported.
            StorageError: The file cannot be read or stored; nothing was reported.
        """
        _ = max_history
        if sum(given is not None for given in (local_path, stream, url)) != 1:
            raise InvalidRequestError("Exactly one of local_path, stream and url must be given")
        if stream is None:
            self._report_file("media", self._place(title, series, iteration), local_path, url, delete_after_upload)
            return
        if not file_extension or not hasattr(stream, "read"):
            raise InvalidRequestError("A stream needs a read method, and a file_extension that says what it holds")
        content = stream.read()
        data = content.encode() if isinstance(content, str) else bytes(content)
        name = f"media.{file_extension.lstrip('.')}"
        self._reports()[0].file(self._place(title, series, iteration), "media", data, name)

    def _report_file(
        self,
        what: Literal["image", "media"],
        place: Place,
        local_path: str | os.PathLike[str] | None,
        url: str | None,
        delete: bool,
    ) -> None:
        reports = self._reports()[0]
        if local_path is None:
            reports.address(place, what, str(url))
            return
        path = Path(local_path).expanduser()
        reports.file(place, what, path, path.name)
        if delete:
            path.unlink()

    def report_matplotlib_figure(
        self,
        title: str,
        series: str,
        figure: Any,
        iteration: int | None = None,
        report_image: bool = False,
        report_interactive: bool = True,
    ) -> None:
        """Report a figure of matplotlib's, as a picture.

        Args:
            title: Name of the chart.
            series: Name of the variant.
            figure: A `Figure`, or `matplotlib.pyplot` for its current one.
            iteration: The training iteration.
            report_image: Accepted for compatibility; it is always a picture.
            report_interactive: Accepted for compatibility.

        Raises:
            InvalidRequestError: It is no figure; nothing was reported.
        """
        _ = report_image, report_interactive
        from modelstore.reports.pictures import from_matplotlib

        content = from_matplotlib(figure)
        self._reports()[0].file(self._place(title, series, iteration), "image", content, "figure.png")
