"""A package as an MLflow pyfunc (models from code).

MLflow copies this file into the model, so it imports nothing but installed packages.
"""

from __future__ import annotations

from typing import Any

import mlflow
import pandas as pd

from shoplens.packages.model import PackagedModel
from shoplens.packages.table import answer


class PackagedPyfunc(mlflow.pyfunc.PythonModel):
    """`predict` answers each row of a table; see `shoplens.packages.table.answer`.

    It takes lists, texts, photos and arrays too. The annotation is what MLflow understands without checking the input.
    """

    def load_context(self, context: Any) -> None:
        self.model = PackagedModel.load(context.artifacts["package"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Raises ShoplensError naming the row that cannot be answered, and why."""
        return answer(self.model, model_input, (params or {}).get("capability") or None)


mlflow.models.set_model(PackagedPyfunc())
