package xfrm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"pqlab/ipsec"
)

// Statistics is /proc/net/xfrm_stat: what the IPsec of one network namespace refused, by the kernel's reasons.
type Statistics map[string]uint64

// statFile reads the statistics of the namespace that it was opened in.
type statFile struct{ file *os.File }

// openStatistics opens those of the calling thread's namespace.
func openStatistics() (*statFile, error) {
	f, err := os.Open("/proc/thread-self/net/xfrm_stat")
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w (it takes CONFIG_XFRM_STATISTICS): %w; %s", ErrNoStatistics, err, Instead)
	}
	if err != nil {
		return nil, err
	}
	return &statFile{f}, nil
}

func (s *statFile) Close() error { return s.file.Close() }

func (s *statFile) read() (Statistics, error) {
	b, err := io.ReadAll(io.NewSectionReader(s.file, 0, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.file.Name(), err)
	}
	return parseStatistics(b)
}

// ReadStatistics reads those of the calling thread's namespace.
func ReadStatistics() (Statistics, error) {
	f, err := openStatistics()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.read()
}

func parseStatistics(b []byte) (Statistics, error) {
	s := Statistics{}
	for line := range bytes.Lines(b) {
		fields := bytes.Fields(line)
		if len(fields) != 2 {
			return nil, fmt.Errorf("xfrm_stat: line %q", line)
		}
		n, err := strconv.ParseUint(string(fields[1]), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("xfrm_stat: line %q: %w", line, err)
		}
		s[string(fields[0])] = n
	}
	return s, nil
}

// Since is what rose after an earlier reading.
func (s Statistics) Since(before Statistics) Statistics {
	rose := Statistics{}
	for name, n := range s {
		if n > before[name] {
			rose[name] = n - before[name]
		}
	}
	return rose
}

// What an SA's own counters, or the tunnels' states, say more of.
const (
	statNoSA    = "XfrmOutNoStates"
	statReplay  = "XfrmInStateSeqError"
	statBroken  = "XfrmInStateProtoError" // the ICV is wrong, or what is under it
	statExpired = "XfrmOutStateExpired"
)

// reasons are the contract's names for the kernel's. What is missing, also because a newer kernel has it, counts as
// malformed where it arrives, and as not sent where it leaves.
var reasons = map[string]func(*ipsec.Drops) *uint64{
	statNoSA:                  func(d *ipsec.Drops) *uint64 { return &d.NoSA },
	"XfrmOutPolBlock":         func(d *ipsec.Drops) *uint64 { return &d.NoSA },
	"XfrmOutBundleGenError":   func(d *ipsec.Drops) *uint64 { return &d.NoSA },
	"XfrmOutBundleCheckError": func(d *ipsec.Drops) *uint64 { return &d.NoSA },
	"XfrmInNoStates":          func(d *ipsec.Drops) *uint64 { return &d.UnknownSPI },
	"XfrmAcquireError":        func(d *ipsec.Drops) *uint64 { return &d.UnknownSPI }, // inbound: an SA that is not ready
	statReplay:                func(d *ipsec.Drops) *uint64 { return &d.Replay },
	"XfrmInStateMismatch":     func(d *ipsec.Drops) *uint64 { return &d.UnknownSPI }, // the SA is for the other encapsulation
	"XfrmInTmplMismatch":      func(d *ipsec.Drops) *uint64 { return &d.Policy },
	"XfrmInNoPols":            func(d *ipsec.Drops) *uint64 { return &d.Policy },
	"XfrmInPolBlock":          func(d *ipsec.Drops) *uint64 { return &d.Policy },
	"XfrmInPolError":          func(d *ipsec.Drops) *uint64 { return &d.Policy },
	"XfrmInStateDirError":     func(d *ipsec.Drops) *uint64 { return &d.UnknownSPI },
	"XfrmInStateExpired":      func(d *ipsec.Drops) *uint64 { return &d.Expired },
	"XfrmInStateInvalid":      func(d *ipsec.Drops) *uint64 { return &d.Expired },
	statExpired:               func(d *ipsec.Drops) *uint64 { return &d.Expired },
	"XfrmOutStateInvalid":     func(d *ipsec.Drops) *uint64 { return &d.Expired },
	"XfrmOutStateSeqError":    func(d *ipsec.Drops) *uint64 { return &d.Expired },
}

// drops gives what was refused by the contract's reasons.
func (s Statistics) drops() (d ipsec.Drops) {
	for name, n := range s {
		to := &d.Malformed
		if f := reasons[name]; f != nil {
			to = f(&d)
		} else if len(name) > 7 && name[:7] == "XfrmOut" {
			to = &d.Send
		}
		*to += n
	}
	return d
}
