package capture

import (
	"io"
	"sync"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/pcapgo"
)

// File is a pcapng file that several taps write to. Its packets are in order of time for each tap, not between them.
type File struct {
	mu      sync.Mutex
	w       io.Writer
	comment string
	ng      *pcapgo.NgWriter // nil until the first tap
	err     error            // the first; nothing is written after it
}

// NewFile begins a pcapng file with a comment. The writer is the caller's to close, after the last tap's Close.
func NewFile(w io.Writer, comment string) *File { return &File{w: w, comment: comment} }

// Flush writes out what is buffered, and gives the first error that any writing had.
func (f *File) Flush() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil && f.ng != nil {
		f.err = f.ng.Flush()
	}
	return f.err
}

func (f *File) add(i pcapgo.NgInterface) (id int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.err != nil:
	case f.ng == nil:
		f.ng, f.err = pcapgo.NewNgWriterInterface(f.w, i, pcapgo.NgWriterOptions{
			SectionInfo: pcapgo.NgSectionInfo{OS: "linux", Application: "pqlab", Comment: f.comment},
		})
	default:
		id, f.err = f.ng.AddInterface(i)
	}
	return id, f.err
}

func (f *File) write(ci gopacket.CaptureInfo, data []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = f.ng.WritePacket(ci, data)
	}
	return f.err
}

// end writes a tap's statistics and everything before them.
func (f *File) end(id int, begin time.Time, s Statistics) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if f.err == nil {
		f.err = f.ng.WriteInterfaceStats(id, pcapgo.NgInterfaceStatistics{
			LastUpdate: now, StartTime: begin, EndTime: now, PacketsReceived: s.Captured + s.Dropped, PacketsDropped: s.Dropped,
		})
	}
	if f.err == nil {
		f.err = f.ng.Flush()
	}
	return f.err
}
