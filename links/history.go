package links

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"pqlab/links/medium"
	"pqlab/links/wire"
)

// History is what was written down of a link's packets, and how they fared by a trace.
type History struct {
	File     string // the trace that was written; empty: none
	Replayed bool   // a trace
	Sides    [2]SideHistory
}

// SideHistory is of what A sent, or of what B sent.
type SideHistory struct {
	Recorded uint64 // packets of which the trace that was written tells

	// Of a replay:
	Traced    uint64 // packets of which the trace tells that was replayed
	Met       uint64 // packets that came
	Beyond    uint64 // of those, the ones after the last of the trace: it began anew, or, if it tells of none, they were lost
	Differing uint64 // of those, the ones of another size than the trace's: other packets than were recorded
}

// EndHistory ends the recording of a link's fates; what is still on its way is not in the trace. ok is false for a link that
// neither records nor replays. An error is that of writing, and then there is no file. A second call tells the same.
func (l *Link) EndHistory() (h History, ok bool, err error) {
	d, is := l.body.(*driven)
	if !is || d.history == nil {
		return h, false, nil
	}
	h, err = d.history.end(d.wire)
	if err != nil {
		err = fmt.Errorf("link %s: trace of fates: %w", l.Name, err)
	}
	return h, true, err
}

// history is of one link that is there.
type history struct {
	recorder *medium.Recorder // nil: nothing is recorded
	spool    *spool           // that it writes to
	trace    *medium.Trace    // nil: nothing is replayed
	replay   *medium.Replay

	mu     sync.Mutex
	ended  bool
	result History
	err    error
}

// end completes it. The wire is not being closed meanwhile.
func (h *history) end(w *wire.Wire) (History, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended {
		return h.result, h.err
	}
	h.ended = true
	var errFlush error
	finish := func(time.Duration) {
		h.count()
		if h.recorder != nil {
			errFlush = h.recorder.Flush()
		}
	}
	if errors.Is(w.Do(finish), wire.ErrClosed) { // its thread has ended
		finish(0)
	}
	switch {
	case h.spool == nil:
	case errFlush != nil:
		h.err = errors.Join(errFlush, h.spool.discard())
	default:
		h.err = h.spool.commit()
	}
	if h.spool != nil && h.err == nil {
		h.result.File = h.spool.path
	}
	return h.result, h.err
}

func (h *history) count() {
	h.result.Replayed = h.replay != nil
	for port := range h.result.Sides {
		s := &h.result.Sides[port]
		if h.recorder != nil {
			s.Recorded = h.recorder.Noted(port)
		}
		if h.replay != nil {
			s.Traced, s.Met = uint64(h.trace.Packets(port)), h.replay.Counters(port).Packets
			s.Beyond, s.Differing = h.replay.Beyond(port), h.replay.Differing(port)
		}
	}
}

// leave ends it for a link that goes. Who has ended it before knows of its error.
func (h *history) leave(w *wire.Wire) error {
	if h == nil {
		return nil
	}
	h.mu.Lock()
	ended := h.ended
	h.mu.Unlock()
	if ended {
		return nil
	}
	_, err := h.end(w)
	return err
}

// discard leaves no file. The wire's thread has ended, or never began.
func (h *history) discard() error {
	if h.spool == nil {
		return nil
	}
	return h.spool.discard()
}
