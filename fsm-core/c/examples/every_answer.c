// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Every answer of the library, one a line, also to numbers that are no states and flags that are no
// set: what a test holds against the core's own.

#include <inttypes.h>
#include <stdio.h>

#include "vfio_fsm.h"

static const uint64_t flags[] = { 1, 3, 5, 7, 0, 2, 4, 8, 9, UINT64_MAX };
static const uint32_t states[] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 255, UINT32_MAX };
static const int errnos[] = { -1, 0, 1, 5, 9, 19, 22, INT32_MAX };
static const int32_t fds[] = { -1, 0, 7, INT32_MIN };

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define EACH(i, array) for (size_t i = 0; i < COUNT(array); i++)

// What is not written stays so.
#define UNTOUCHED 0xa5a5a5a5u

static void pair(uint64_t set, uint32_t from, uint32_t to)
{
    struct vfio_fsm_route route = { { UNTOUCHED, UNTOUCHED, UNTOUCHED, UNTOUCHED }, UNTOUCHED, UNTOUCHED };
    uint32_t hop = UNTOUCHED;
    int hopped = vfio_fsm_next_hop(set, from, to, &hop);
    int routed = vfio_fsm_route(set, from, to, &route);

    printf("route %" PRIu64 " %" PRIu32 " %" PRIu32 ": %d %d %" PRIu32 ", %d %" PRIu32 " %" PRIu32
           " %" PRIu32 " %" PRIu32 " len %" PRIu32 " opens %" PRIu32 "\n",
           set, from, to, vfio_fsm_is_legal(set, from, to), hopped, hop, routed, route.hops[0],
           route.hops[1], route.hops[2], route.hops[3], route.len, route.opens);
    EACH(f, fds) {
        uint32_t evidence = UNTOUCHED;
        int code = vfio_fsm_evidence_of_set(set, from, to, fds[f], &evidence);

        printf("of_set %" PRIu64 " %" PRIu32 " %" PRIu32 " %" PRId32 ": %d %" PRIu32 "\n", set, from,
               to, fds[f], code, evidence);
    }
}

static void states_alone(uint32_t one, uint32_t other)
{
    uint32_t behind = UNTOUCHED, before = UNTOUCHED;
    int code = vfio_fsm_evidence_behind_set(one, other, &behind);

    printf("behind_set %" PRIu32 " %" PRIu32 ": %d %" PRIu32 "\n", one, other, code, behind);
    code = vfio_fsm_evidence_of_state(one, other, &before);
    printf("of_state %" PRIu32 " %" PRIu32 ": %d %" PRIu32 "\n", one, other, code, before);
}

static void nulls(void)
{
    printf("null: %d %d %d %d %d %d %d\n", vfio_fsm_next_hop(7, 2, 6, NULL),
           vfio_fsm_route(7, 2, 6, NULL), vfio_fsm_evidence_of_set(7, 2, 6, 3, NULL),
           vfio_fsm_evidence_behind_set(3, 2, NULL), vfio_fsm_evidence_of_call(19, 2, NULL),
           vfio_fsm_evidence_of_state(6, 2, NULL), vfio_fsm_choices(7, 1, false, NULL));
}

int main(void)
{
    EACH(set, flags) {
        printf("migratable %" PRIu64 ": %d\n", flags[set], vfio_fsm_is_migratable(flags[set]));
        EACH(from, states)
            EACH(to, states)
                pair(flags[set], states[from], states[to]);
        for (uint32_t left = 0; left < 3; left++) {
            for (int held = 0; held < 2; held++) {
                uint32_t choices = UNTOUCHED;
                int code = vfio_fsm_choices(flags[set], left, held, &choices);

                printf("choices %" PRIu64 " %" PRIu32 " %d: %d %" PRIu32 "\n", flags[set], left, held,
                       code, choices);
            }
        }
    }
    EACH(one, states) {
        printf("name %" PRIu32 ": %s\n", states[one], vfio_fsm_state_name(states[one]));
        EACH(other, states)
            states_alone(states[one], states[other]);
        EACH(err, errnos) {
            uint32_t evidence = UNTOUCHED;
            int code = vfio_fsm_evidence_of_call(errnos[err], states[one], &evidence);

            printf("of_call %d %" PRIu32 ": %d %" PRIu32 "\n", errnos[err], states[one], code, evidence);
        }
    }
    for (int code = -13; code <= 1; code++)
        printf("code %d: %s\n", code, vfio_fsm_strerror(code));
    nulls();
    return 0;
}
