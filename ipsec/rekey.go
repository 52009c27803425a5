package ipsec

import (
	"errors"
	"time"
)

// The first pause after a failed exchange, and the longest.
const (
	firstPause   = 500 * time.Millisecond
	longestPause = 15 * time.Second
)

// trigger asks for new SAs. Reasons that come together are served by one exchange.
func (t *Tunnel) trigger(why Trigger) {
	if t.closed {
		return
	}
	if t.want == "" {
		t.wanted = t.usage()
	}
	if t.want == "" || t.want == OnDemand {
		t.want = why // a limit outlasts the demand, which may be withdrawn
	}
	if t.exchange == nil && t.retry == nil {
		t.begin()
	}
}

// expired handles a limit of volume that the dataplane watched, or a packet that found no SA.
func (t *Tunnel) expired(e Expiry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	if e.Trigger == ByTraffic {
		if t.onTraffic && t.out == 0 {
			t.trigger(ByTraffic)
		}
		return
	}
	x := t.exchange
	fresh := x != nil && x.installed && (e.SPI == x.spi || e.SPI == x.peer)
	var of SPIPair
	switch e.SPI {
	case t.in:
		of.In = e.SPI
	case t.out:
		of.Out = e.SPI
	default:
		if !fresh {
			return // replaced already
		}
		of.In = e.SPI
	}
	if e.Hard {
		t.emit(Event{Kind: Expired, Trigger: e.Trigger, Old: of, Replaced: t.usage()})
	}
	if fresh {
		x.next = e.Trigger // the exchange under way does not serve it
		return
	}
	t.trigger(e.Trigger)
}

// watchTime starts the limits of time of new SAs.
func (t *Tunnel) watchTime(initiator bool) {
	t.due.stop()
	t.end.stop()
	soft := t.limits.Time
	if !initiator {
		soft = t.limits.late().Time
	}
	hard := t.limits.hard().Time
	t.due = t.after(soft, func() { t.trigger(ByTime) })
	t.end = t.after(hard, t.lapse)
	t.endAt = t.set.clock.Now().Add(hard)
}

// lapse is the hard limit of time, which no dataplane watches. Attempts have been going on since the soft one.
func (t *Tunnel) lapse() {
	e := Event{Kind: Expired, Trigger: ByTime, Old: SPIPair{t.in, t.out}, Replaced: t.usage()}
	e.Err = t.dropSAs()
	t.emit(e)
}

// fail ends an exchange that brought no new SAs, or none that are sure.
func (t *Tunnel) fail(x *exchange, err error) {
	if t.closed {
		return
	}
	giveWay := ErrAbandoned // by the peer
	if x.initiator {
		giveWay = ErrBusy
	}
	if !x.installed && errors.Is(err, giveWay) {
		t.retryLater()
		return
	}
	t.emit(Event{
		Kind: Failed, Trigger: x.trigger, Initiator: x.initiator, Old: SPIPair{t.in, t.out},
		Triggered: x.triggered, Replaced: t.usage(), Duration: time.Since(x.began), Err: err,
	})
	if x.initiator {
		t.wake(err)
		if !t.up && t.want == OnDemand {
			t.want = "" // nothing was there before, so nothing is to be kept alive
		}
	}
	t.retryLater()
}

// retryLater makes another attempt after a pause if new SAs are still needed.
func (t *Tunnel) retryLater() {
	if t.want == "" || t.retry != nil {
		return
	}
	pause := longestPause
	if t.attempts < 5 { // 0.5, 1, 2, 4, 8 s
		pause = firstPause << t.attempts
	}
	t.attempts++
	pause -= time.Duration(t.jitter.Int64N(int64(pause / 2)))
	t.retry = t.after(pause, func() {
		t.retry = nil
		if t.want != "" && t.exchange == nil {
			t.begin()
		}
	})
}
