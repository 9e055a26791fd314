"""MLflow: one writer, names that others may rely on, and the way back.

``glossary`` holds the names, ``storage`` finds or creates the store, ``spool`` keeps events on disk
until they are written, ``mlflow_store`` is the one writer, ``rebuild`` reads a frontier back.
Nothing is imported here, so that the names do not cost an import of MLflow.
"""
