"""The front end of the audio encoder: Whisper's log-mels of many clips at once.

The same numbers as WhisperFeatureExtractor gives for each clip alone (test_layers.py), but for a
clip's last frame, which may see zeros in place of its mirrored end."""

import torch
import torch.nn.functional as F

from common import DEVICE
from layers import CHUNK

SAMPLE_RATE, WINDOW, STEP, BINS = 16000, 400, 160, 128


class WhisperMel:
    def __init__(self):
        from transformers.audio_utils import mel_filter_bank

        bank = mel_filter_bank(1 + WINDOW // 2, BINS, 0.0, SAMPLE_RATE / 2, SAMPLE_RATE,
                               norm="slaney", mel_scale="slaney")
        self.bank = torch.tensor(bank.T, dtype=torch.float32, device=DEVICE)
        self.window = torch.hann_window(WINDOW, device=DEVICE)

    def __call__(self, waves, lengths):
        """[batch, n], [batch] -> (mels [batch, 128, n // 160], frames [batch]); zero past a clip"""
        spectrum = torch.stft(waves, WINDOW, STEP, window=self.window, return_complex=True)
        power = spectrum[..., :-1].abs() ** 2
        mel = torch.log10((self.bank @ power).clamp(min=1e-10))
        frames = lengths // STEP
        inside = (torch.arange(mel.shape[-1], device=mel.device) < frames[:, None])[:, None]
        top = torch.where(inside, mel, -10.0).amax((1, 2), keepdim=True)
        mel = (torch.maximum(mel, top - 8.0) + 4.0) / 4.0
        return torch.where(inside, mel, 0.0), frames


def chunked(mels):
    """[batch, 128, frames] -> [batch, seconds, 128, 100], zeros past the end"""
    mels = F.pad(mels, (0, -mels.shape[-1] % CHUNK))
    return mels.unflatten(-1, (-1, CHUNK)).transpose(1, 2)


def token_count(frames):
    """Rows that the encoder makes of so many mel frames."""
    return 13 * (frames // CHUNK) + -(-(frames % CHUNK) // 8)
