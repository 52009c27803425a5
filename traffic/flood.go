package traffic

import (
	"context"
	"time"

	"golang.org/x/sys/unix"
)

// Flood sends datagrams for so long, so many a second: most by one call, which the kernel cuts (UDP_SEGMENT), so that one
// processor makes gigabits. What is late is sent at once; no call has more than most datagrams, or than the kernel takes.
func (p *Prober) Flood(ctx context.Context, perSecond float64, d time.Duration, most int) error {
	const (
		segments = 64 // UDP_MAX_SEGMENTS of older kernels
		payload  = 64000
		pause    = time.Millisecond // between calls, if there are not too many for that
		room     = 16 << 20         // or the socket holds back what is to be offered
	)
	each := max(1, min(int(perSecond*pause.Seconds()), segments, payload/p.size, most))
	if err := control(p.from, func(fd int) error {
		setBuffer(fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, room)
		if each == 1 {
			return nil
		}
		return unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_SEGMENT, p.size)
	}); err != nil {
		return err
	}
	c := newClock()
	start := c.now()
	gap := time.Duration(float64(each) / perSecond * float64(time.Second))
	for at := time.Duration(0); at < d && c.now() < start.Add(d); at += gap {
		if !sleepUntil(ctx, c, start.Add(at)) {
			return context.Cause(ctx)
		}
		if err := p.SendTogether(each); err != nil {
			return err
		}
	}
	return nil
}
