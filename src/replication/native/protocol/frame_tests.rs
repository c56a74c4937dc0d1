// SPDX-License-Identifier: Apache-2.0

use super::*;
use std::collections::VecDeque;

/// Gives out pieces; an empty one is a time-out.
struct Pieces(VecDeque<Vec<u8>>);

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(mut piece) = self.0.pop_front() else { return Ok(0) };
        if piece.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = piece.len().min(buffer.len());
        buffer[..count].copy_from_slice(&piece[..count]);
        if count < piece.len() {
            self.0.push_front(piece.split_off(count));
        }
        Ok(count)
    }
}

fn commit() -> Vec<u8> {
    let mut bytes = Vec::new();
    write_frame(&mut bytes, FrameKind::Commit, 7, 0, &[1, 2, 3, 4, 5, 6, 7, 8]);
    bytes
}

#[test]
fn every_type_has_its_own_byte_and_bounds_within_the_bound_of_all() {
    for &kind in FrameKind::ALL {
        assert_eq!(FrameKind::from_code(kind as u8), Some(kind));
        let (min, max) = kind.payload_bounds();
        assert!(min <= max && max <= PAYLOAD_BYTES_MAX, "{}: {min} to {max}", kind.name());
    }
    assert_eq!(FrameKind::from_code(0), None);
}

#[test]
fn the_magic_is_no_frame() {
    let mut bytes = MAGIC.to_vec();
    bytes.extend([0; 64]);
    assert!(read_frame(&mut &bytes[..], PAYLOAD_BYTES_MAX).is_err());
}

#[test]
fn a_close_at_a_border_is_not_a_cut_inside_a_frame() {
    let bytes = commit();
    assert!(matches!(read_frame(&mut &bytes[..0], 64), Ok(None)));
    for cut in 1..bytes.len() {
        let error = read_frame(&mut &bytes[..cut], 64).unwrap_err();
        let expected_len = if cut < HEADER_LEN { HEADER_LEN } else { bytes.len() };
        assert!(
            matches!(error, FrameError::Cut { found, expected } if found == cut && expected == expected_len),
            "{error}"
        );
    }
    let twice = [bytes.clone(), bytes].concat();
    let mut reader = FrameReader::new(&twice[..]);
    assert!(reader.next(64).unwrap().is_some());
    assert!(reader.next(64).unwrap().is_some());
    assert!(reader.next(64).unwrap().is_none());
}

#[test]
fn a_time_out_at_any_byte_loses_nothing() {
    let bytes = commit();
    for cut in 0..=bytes.len() {
        let pieces = [bytes[..cut].to_vec(), Vec::new(), bytes[cut..].to_vec()];
        let pieces = pieces.into_iter().enumerate().filter(|(i, piece)| *i == 1 || !piece.is_empty());
        let mut reader = FrameReader::new(Pieces(pieces.map(|(_, piece)| piece).collect()));
        if cut < bytes.len() {
            assert!(matches!(reader.next(64), Err(FrameError::Io(_))));
            assert_eq!(reader.is_inside_frame(), cut > 0);
        }
        assert_eq!(reader.next(64).unwrap().unwrap().payload, [1, 2, 3, 4, 5, 6, 7, 8]);
    }
}

#[test]
fn any_changed_bit_is_found() {
    let bytes = commit();
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(read_frame(&mut &changed[..], 64).is_err(), "bit {bit}");
    }
}

#[test]
fn of_sealed_frames_any_changed_bit_and_any_other_order_is_found() {
    let mut seal = Seal::new(&[1; 32]);
    let frames: Vec<Vec<u8>> = (0..3)
        .map(|epoch| {
            let mut bytes = Vec::new();
            write_frame(&mut bytes, FrameKind::Durable, epoch, 0, &[]);
            let mac = seal.mac(&[&bytes]);
            [&bytes[..], &mac].concat()
        })
        .collect();
    let read = |bytes: &[u8]| {
        let mut reader = FrameReader::new(bytes);
        reader.set_seal(Some(Seal::new(&[1; 32])));
        let mut epochs = Vec::new();
        while let Some(frame) = reader.next(64)? {
            epochs.push(frame.epoch);
        }
        Ok::<_, FrameError>(epochs)
    };
    assert_eq!(read(&frames.concat()).unwrap(), [0, 1, 2]);
    for bit in 0..frames[0].len() * 8 {
        let mut changed = frames.concat();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(read(&changed).is_err(), "bit {bit}");
    }
    for order in [&[1, 2][..], &[0, 2, 1], &[0, 0], &[0, 2]] {
        let bytes: Vec<u8> = order.iter().flat_map(|&number: &usize| frames[number].clone()).collect();
        let error = read(&bytes).unwrap_err();
        assert!(matches!(error, FrameError::Mac { .. }), "{error}");
    }
    let cut = &frames[0][..frames[0].len() - 1];
    assert!(matches!(read(cut).unwrap_err(), FrameError::Cut { .. }));
}

#[test]
fn a_length_is_refused_before_it_is_allocated() {
    let mut bytes = [0xff; HEADER_LEN];
    bytes[4] = FrameKind::Log as u8;
    let error = read_frame(&mut &bytes[..], u32::MAX).unwrap_err();
    assert_eq!(error.to_string(), "a Log frame with a payload of 4294967295 bytes, expected 1 to 262145");
    bytes[..4].copy_from_slice(&1000u32.to_le_bytes());
    let error = read_frame(&mut &bytes[..], 100).unwrap_err();
    assert_eq!(error.to_string(), "a Log frame with a payload of 1000 bytes, expected 1 to 100");
}

#[test]
fn a_frame_around_a_piece_is_the_frame_that_would_hold_it() {
    let piece = b"session bytes";
    let mut streamed = Vec::new();
    LogFrame::around(9, 3, true, false, piece).write(&mut streamed, piece).unwrap();
    let mut copied = Vec::new();
    write_frame(&mut copied, FrameKind::Log, 9, 3, &[&[FLAG_FIRST][..], piece].concat());
    assert_eq!(streamed, copied);
}
