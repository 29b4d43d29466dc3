"""Sets of captioned clips: shards or files of audio, and the manifest that tells what each clip is."""
