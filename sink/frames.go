package sink

import (
	"github.com/ClickHouse/ch-go/compress"
)

const (
	// frameBytes are compressed at once: ClickHouse's own default for a compressed
	// buffer.
	frameBytes = 1 << 20
	// probeBytes of a large column are compressed first, to see whether the rest is
	// worth it.
	probeBytes = 64 << 10
	// aloneBytes are a frame of their own: less is gathered.
	aloneBytes = 64 << 10
)

// frames is an io.Writer that makes ClickHouse's compressed frames. Large writes
// are compressed from where they stand, and are sent as they are where compressing
// their beginning saved less than an eighth: payloads may be compressed already,
// or encrypted.
type frames struct {
	lz4, none *compress.Writer
	small     []byte // gathered, less than frameBytes
	body      []byte // the frames
}

func newFrames() *frames {
	return &frames{
		lz4:  compress.NewWriter(compress.LevelZero, compress.LZ4),
		none: compress.NewWriter(compress.LevelZero, compress.None),
	}
}

func (f *frames) reset() { f.small, f.body = f.small[:0], f.body[:0] }

// Write adds p, which must not change before close.
func (f *frames) Write(p []byte) (int, error) {
	if len(p) < aloneBytes {
		f.small = append(f.small, p...)
		if len(f.small) < frameBytes-aloneBytes {
			return len(p), nil
		}
		return len(p), f.close()
	}
	if err := f.close(); err != nil {
		return 0, err
	}
	use := f.lz4
	for rest := p; len(rest) > 0; {
		n := min(len(rest), frameBytes)
		if len(rest) == len(p) && len(p) > 2*probeBytes {
			n = probeBytes
		}
		before := len(f.body)
		if err := f.frame(use, rest[:n]); err != nil {
			return 0, err
		}
		if n == probeBytes && len(f.body)-before > probeBytes-probeBytes/8 {
			use = f.none
		}
		rest = rest[n:]
	}
	return len(p), nil
}

// close makes a frame of what was gathered.
func (f *frames) close() error {
	if len(f.small) == 0 {
		return nil
	}
	err := f.frame(f.lz4, f.small)
	f.small = f.small[:0]
	return err
}

func (f *frames) frame(use *compress.Writer, p []byte) error {
	if err := use.Compress(p); err != nil {
		return err
	}
	f.body = append(f.body, use.Data...)
	return nil
}
