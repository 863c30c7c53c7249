/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * A whole route as a driver's migration_set_state() walks it, with nothing done on the arcs.
 *
 * A file of its own, as drivers are: the lookup is called across it and not inlined.
 */
#include "shim.h"

/* How many arcs there were, or the error. */
int kernel_route(struct vfio_device *device, enum vfio_device_mig_state from,
		 enum vfio_device_mig_state to);

int kernel_route(struct vfio_device *device, enum vfio_device_mig_state from,
		 enum vfio_device_mig_state to)
{
	enum vfio_device_mig_state next;
	int arcs = 0;

	while (from != to) {
		int ret = vfio_mig_get_next_state(device, from, to, &next);

		if (ret)
			return ret;
		from = next;
		arcs++;
	}
	return arcs;
}
