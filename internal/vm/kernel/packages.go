package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
)

// anyPackage is how Debian names packages.
var anyPackage = regexp.MustCompile(`^[a-z0-9][a-z0-9.+-]+$`)

// FetchPackages gets other packages than kernels into a cache of their own, unpacked over one another into a directory that
// is named after the first one's version, unless it is there, and returns that. As Fetch it can run several times at once.
// It wraps errors.ErrUnsupported where apt or the packages are not to be had.
func (c Cache) FetchPackages(ctx context.Context, apt Apt, names []string, say func(string)) (string, error) {
	dir, err := c.fetchPackages(ctx, apt, names, say)
	switch {
	case errors.Is(err, ErrNoApt), errors.Is(err, ErrNoPackage), errors.Is(err, ErrDownload), errors.Is(err, ErrCorrupt):
		err = fmt.Errorf("%w: %w (as root, apt-get update may help)", errors.ErrUnsupported, err)
	case errors.Is(err, ErrFull), err != nil && full(err):
		err = fmt.Errorf("%w: %w; make room in %s, or set XDG_CACHE_HOME", errors.ErrUnsupported, err, c.Dir)
	}
	return dir, err
}

func (c Cache) fetchPackages(ctx context.Context, apt Apt, names []string, say func(string)) (string, error) {
	var all []Package
	var size int64
	for _, name := range names {
		p, err := apt.Find(ctx, name)
		if err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
		all, size = append(all, p), size+p.Size
	}
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return "", err
	}
	unlock, err := c.lock(ctx, say)
	if err != nil {
		return "", err
	}
	defer unlock()
	dir := filepath.Join(c.Dir, all[0].Version)
	if exists(dir) { // it was renamed when it was whole
		return dir, nil
	}
	if err := c.sweep(all[0].Version); err != nil {
		return "", err
	}
	if err := c.room(size * unpacking); err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp(c.Dir, temporary)
	if err != nil {
		return "", err
	}
	err = errors.Join(os.Chmod(tmp, 0o755), apt.unpack(ctx, all, tmp, say))
	if err == nil {
		err = flush(tmp)
	}
	if err == nil {
		err = os.Rename(tmp, dir)
	}
	if err != nil {
		return "", errors.Join(err, os.RemoveAll(tmp))
	}
	return dir, nil
}

// unpack downloads packages and unpacks them into dir.
func (a Apt) unpack(ctx context.Context, all []Package, dir string, say func(string)) error {
	for _, p := range all {
		say(fmt.Sprintf("downloading %s %s", p.Name, p.Version))
		deb, err := a.download(ctx, p, dir)
		if err != nil {
			return err
		}
		if _, err := run(a.command(ctx, "dpkg-deb", "-x", deb, dir)); err != nil {
			return err
		}
		if err := os.Remove(deb); err != nil {
			return err
		}
	}
	return nil
}
