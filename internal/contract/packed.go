package contract

import (
	"encoding/binary"
	"errors"
	"time"
)

// PackedHours is what a disk remembers in a tenth of the bytes that JSON takes: a
// report asks a thousand disks. For each hour there are the fields of HistoryHour, in
// their order, as varints of what was added to the hour before's; Hour counts in hours.
type PackedHours []byte

// packedFields of an hour, and the most bytes that one takes in JSON (base64).
const (
	packedFields = 8
	packedMost   = (packedFields*binary.MaxVarintLen64*4 + 2) / 3
)

func (h *HistoryHour) fields() [packedFields]int64 {
	return [packedFields]int64{
		h.Hour.Unix() / 3600, h.UsedMinBytes, h.UsedMaxBytes, h.WrittenBytes, int64(h.PeakIOPS), int64(h.PeakMiBs), h.BackingBytes, h.FSUsedMaxBytes,
	}
}

// PackHours packs hours. No hours are not nil, which is an answer that was not given.
func PackHours(hours []HistoryHour) PackedHours {
	out := PackedHours{}
	var last [packedFields]int64
	for i := range hours {
		now := hours[i].fields()
		for k, v := range now {
			out = binary.AppendVarint(out, v-last[k])
		}
		last = now
	}
	return out
}

// Hours unpacks.
func (p PackedHours) Hours() ([]HistoryHour, error) {
	hours := []HistoryHour{}
	var v [packedFields]int64
	for len(p) > 0 {
		for k := range v {
			add, n := binary.Varint(p)
			if n <= 0 {
				return nil, errors.New("packed hours are cut off")
			}
			v[k] += add
			p = p[n:]
		}
		if len(hours) == HistoryHours {
			return nil, errors.New("packed hours are more than a disk remembers")
		}
		hours = append(hours, HistoryHour{
			Hour: time.Unix(v[0]*3600, 0).UTC(), UsedMinBytes: v[1], UsedMaxBytes: v[2], WrittenBytes: v[3],
			PeakIOPS: int32(v[4]), PeakMiBs: int32(v[5]), BackingBytes: v[6], FSUsedMaxBytes: v[7],
		})
	}
	return hours, nil
}
