package registry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hookline/hookline/pipeline/audit"
	"github.com/hookline/hookline/pipeline/secret"
)

// keepState keeps whatever state is decided: new secrets are no new
// configuration.
func keepState(*StateInfo) bool { return true }

// RotateSecret puts fresh in front of the subscription's signing secrets. Those
// that sign now go on for overlap, or as long as they were to anyway; overlap is
// 0 to MaxOverlap, and 0 ends them at once.
func (w *Writer) RotateSecret(ctx context.Context, id string, fresh secret.Value, overlap time.Duration) (Change, error) {
	if overlap < 0 || overlap > MaxOverlap {
		return Change{}, fmt.Errorf("rotating the secret of subscription %s: overlap %s is not within 0 to %s", id, overlap, MaxOverlap)
	}
	changes, err := w.change(ctx, audit.ActionRotateSecret, func(s *session) ([]Change, error) {
		k := s.known[id]
		switch {
		case k == nil || !k.exists():
			return nil, fmt.Errorf("rotating the secret of subscription %q: %w", id, ErrNotFound)
		case k.config == nil || k.bad != nil:
			return nil, fmt.Errorf("rotating the secret of subscription %s: its stored form is refused (apply it again): %w", id, k.bad)
		}
		d, err := k.config.rotated(fresh, w.now(), overlap, w.deps.Policy.Keys)
		if err == nil {
			err = join(d.Check(&w.deps.Policy))
		}
		if err == nil {
			d, err = d.seal(nil, w.deps.Policy.Keys)
		}
		if err != nil {
			return nil, fmt.Errorf("rotating the secret of subscription %s: %w", id, oneLineError(err))
		}
		c, err := s.store(d, keepState)
		return []Change{c}, err
	})
	if err != nil {
		return Change{}, err
	}
	return changes[0], nil
}

// rotated gives the document with fresh in front.
func (d *Document) rotated(fresh secret.Value, now time.Time, overlap time.Duration, keys *secret.Keyring) (*Document, error) {
	if d.Signing == nil {
		return nil, errors.New("it is not signed (give it signing and apply)")
	}
	c := d.clone()
	c.Signing.Secrets = []SecretDoc{{Secret: fresh}}
	for _, old := range d.Signing.Secrets {
		if sameSecret(d.ID, old.Secret, fresh, keys) {
			return nil, errors.New("the secret is one of its secrets already")
		}
		if end := now.Add(overlap); old.Expires.IsZero() || old.Expires.After(end) && overlap == 0 {
			old.Expires = end
		}
		if old.Expires.After(now) {
			c.Signing.Secrets = append(c.Signing.Secrets, old)
		}
	}
	if old := len(c.Signing.Secrets) - 1; old > MaxOldSecrets {
		return nil, fmt.Errorf("%d old secrets would sign, at most %d may (use a shorter --overlap, or 0 to end them now)", old, MaxOldSecrets)
	}
	return c, nil
}

// sameSecret tells whether two values are one secret, as far as it can be told here:
// what references name is another process's to read.
func sameSecret(id string, a, b secret.Value, keys *secret.Keyring) bool {
	if a == b {
		return true
	}
	text, err := keys.Open(id, a)
	return err == nil && b.IsPlain() && text.Equal(b.Plaintext())
}

// RotateKeys seals anew, with the first key, every secret that another key
// sealed. Subscriptions whose secrets do not open are left as they are; the
// error names them all, and the changes are made nevertheless.
func (w *Writer) RotateKeys(ctx context.Context) ([]Change, error) {
	if w.deps.Policy.Keys == nil {
		return nil, fmt.Errorf("sealing secrets anew: %w", secret.ErrNoKeys)
	}
	var unreadable []error
	changes, err := w.change(ctx, audit.ActionRotateKeys, func(s *session) ([]Change, error) {
		unreadable = nil
		var changes []Change
		for _, id := range slices.Sorted(maps.Keys(s.known)) {
			k := s.known[id]
			if k.config == nil {
				continue
			}
			d, changed, err := k.config.reseal(w.deps.Policy.Keys)
			if err != nil {
				unreadable = append(unreadable, err)
			}
			if err != nil || !changed || k.bad != nil {
				continue
			}
			c, err := s.store(d, keepState)
			if err != nil {
				return nil, err
			}
			changes = append(changes, c)
		}
		return changes, nil
	})
	if err != nil {
		return nil, err
	}
	return changes, errors.Join(unreadable...)
}
