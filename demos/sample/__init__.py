"""The sample call, installed as ``idm_rt.sample``. Data, not code; ``demos/make_sample.py`` makes it."""
