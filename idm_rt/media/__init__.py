"""Photos and videos in and out. The submodules import PyAV, OpenCV and Pillow: import them where they are used."""
