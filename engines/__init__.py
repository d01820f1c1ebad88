"""The shipped models, installed as ``idm_rt.engines``. Data, not code."""
